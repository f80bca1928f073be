"""Parts over loopback, with scripted backends."""
