"""Tests of influxrelay.delivery."""
