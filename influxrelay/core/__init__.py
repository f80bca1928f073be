"""Values and helpers that import nothing of ours."""
