"""The composition root: one process with everything in it."""
