"""Which shard has what, and writes divided among them."""
