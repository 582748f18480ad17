"""The protocol between scheduler and workers: messages and frames; no I/O."""
