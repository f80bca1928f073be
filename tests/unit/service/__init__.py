"""Tests of influxrelay.service."""
