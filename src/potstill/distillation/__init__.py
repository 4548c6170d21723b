"""Objectives that distil sources into a student."""
