"""What a server says of itself: counts for Prometheus, logs in JSON, traces, where time went."""
