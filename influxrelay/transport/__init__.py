"""Endpoints on the event loop, and TLS."""
