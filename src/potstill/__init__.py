"""Potstill ranks trained models by how related they are to your images and distils them into one small classifier."""

__version__ = "0.1.0"
