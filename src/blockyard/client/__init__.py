"""The blocking Client for a user's own worker loop, and control calls over HTTP."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from blockyard.client.client import Client as Client
    from blockyard.client.context import Context as Context
    from blockyard.client.control import Control as Control

__all__ = ["Client", "Context", "Control"]

_HOMES = {"Client": "client", "Context": "context", "Control": "control"}


def __getattr__(name: str) -> Any:
    """Import a name when it is first used: a slot needs none of them."""
    if name not in _HOMES:
        raise AttributeError(f"module 'blockyard.client' has no attribute '{name}'")
    value = getattr(import_module(f"blockyard.client.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
