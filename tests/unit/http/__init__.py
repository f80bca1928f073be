"""The server's side of HTTP, on a clock and in-memory transports."""
