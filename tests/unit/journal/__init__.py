"""Tests of influxrelay.journal.store."""
