"""The `blockyard` command."""

from __future__ import annotations

from blockyard.cli.app import main

__all__ = ["main"]
