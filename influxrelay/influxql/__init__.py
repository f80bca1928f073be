"""InfluxQL: what a statement does, to which databases, and how it can be rewritten."""
