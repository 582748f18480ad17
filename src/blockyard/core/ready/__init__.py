"""What may run: which blocks are ready, which wait for a retry, which never will."""
