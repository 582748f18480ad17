"""Ending what runs beside the main line: each task is awaited by whoever began it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any


async def cancel(jobs: Sequence[asyncio.Future[Any]]) -> None:
    """Leave no job behind; harmless for those that ended."""
    for job in jobs:
        job.cancel()
    await asyncio.gather(*jobs, return_exceptions=True)
