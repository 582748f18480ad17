"""The scheduler service: TCP server, Redis store, leadership, HTTP and metrics around the pure core."""
