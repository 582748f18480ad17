"""The scheduler as a pure state machine: events and a time in, effects out."""
