"""Bodies of Prometheus' remote write: counted, merged, divided."""
