"""TOML to frozen settings, every error message, and the difference between two configurations."""
