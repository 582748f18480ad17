"""The files that a scheduler leaves in the folder of its run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec

from blockyard.spec.errors import StoreError

ADDRESS, STATUS, FAILURES, RUN = "scheduler.json", "status.json", "failures.json", "run.json"


class Address(msgspec.Struct, kw_only=True):
    """Where a scheduler listens, while it does."""

    host: str
    port: int
    http_host: str
    """Where it is reached, where it listens everywhere."""
    http_port: int
    """-1: no HTTP."""
    pid: int
    run: str
    epoch: int


def write_json(path: Path, value: Any) -> None:
    """Write a file in one step, so that a reader sees the old one or the new one. Raises StoreError."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_bytes(msgspec.json.format(msgspec.json.encode(value)) + b"\n")
        part.replace(path)
    except OSError as error:
        raise StoreError(f"{path} cannot be written ({error.strerror or error})") from error
