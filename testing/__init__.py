"""Servers and doubles for the tests, the benchmarks and the tools."""
