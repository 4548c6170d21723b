"""The student as others load it."""
