"""Tests of influxrelay.verification."""
