"""A whole run on this machine, as processes: Redis, scheduler, and an agent with slots for each pool."""
