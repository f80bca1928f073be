"""Byte streams: sockets on the event loop's own transports, TLS, names and ports."""
