"""The journal that relays share."""
