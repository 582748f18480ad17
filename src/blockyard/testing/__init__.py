"""For tests, ours and yours: virtual clock, simulated workers and store, strategies."""
