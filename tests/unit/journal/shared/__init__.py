"""Tests of influxrelay.journal.shared."""
