"""Where scripts for daisy 0.2 look for `distribute` and `run_blockwise`: ``daisy.scheduler``."""

from __future__ import annotations

from blockyard.local.distribute import distribute, run_blockwise

__all__ = ["distribute", "run_blockwise"]
