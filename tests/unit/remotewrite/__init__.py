"""Tests of influxrelay.remotewrite."""
