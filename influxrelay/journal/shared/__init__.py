"""The journal that several relays share: a log on a replicated stream."""
