"""Seeded schedules of the real objects on a Clock."""
