"""Arithmetic of blocks: grid, levels and conflicts, upstream and downstream, requests, Z-order. No I/O, no clock."""
