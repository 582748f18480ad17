"""The worker service: an agent that holds the connection, and slots that run user code."""
