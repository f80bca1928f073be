"""What ``influxrelay verify`` does: compare the contents of InfluxDB 1.x servers."""
