"""Tests of influxrelay.config.loader."""
