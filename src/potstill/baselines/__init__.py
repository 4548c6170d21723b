"""The rivals: the same student, initial weights, split and budget, without sources."""
