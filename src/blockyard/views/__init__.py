"""A run as others see it: read from the core and the record, changing neither."""
