"""Redis as the scheduler uses it: keys, scripts, commits, and what it promises to keep."""
