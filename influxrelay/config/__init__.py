"""TOML to frozen settings, every error message, and the difference of two configurations."""
