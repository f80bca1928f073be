"""The relay against others, measured in one run: ``python -m bench --help``."""
