"""What ``influxrelay verify`` does: compare the contents of servers."""
