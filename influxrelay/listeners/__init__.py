"""A port and what is behind it."""
