"""Tests of influxrelay.service.relay_service."""
