"""One write to every backend, in order."""
