"""Tests of the benchmark itself: its sinks, its arithmetic, its tables."""
