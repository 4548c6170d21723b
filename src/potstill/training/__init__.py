"""Training of a student: the one loop, its batches, schedule and checkpoints."""
