"""The blocks of one task that were found ready, lowest Z-order key first."""

from __future__ import annotations

from typing import Any

import numpy as np

from blockyard.plan.grid import Ints
from blockyard.plan.zorder import Keys


class ReadyQueue:
    """Keys and addresses, kept sorted; what is pushed is merged when somebody looks."""

    __slots__ = ("_addresses", "_keys", "_new", "_size")

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._keys: Keys = np.empty(0, dtype)
        self._addresses: Ints = np.empty(0, np.int64)
        self._new: list[tuple[Keys, Ints]] = []
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def push(self, keys: Keys, addresses: Ints) -> None:
        """Add blocks, in any order."""
        self._new.append((keys, addresses))
        self._size += len(addresses)

    def keys(self, n: int) -> Keys:
        """Return the `n` lowest keys, ascending."""
        self._merge()
        return self._keys[:n]

    def take(self, n: int) -> Ints:
        """Remove and give the addresses with the `n` lowest keys, ascending."""
        self._merge()
        taken = self._addresses[:n]
        self._keys, self._addresses = self._keys[n:], self._addresses[n:]
        self._size -= len(taken)
        return taken

    def remove(self, addresses: Ints) -> Ints:
        """Remove these blocks; give those that were there."""
        self._merge()
        found = np.isin(self._addresses, addresses)
        removed = self._addresses[found]
        self._keys, self._addresses = self._keys[~found], self._addresses[~found]
        self._size = len(self._addresses)
        return removed

    def addresses(self) -> Ints:
        """Return the addresses of all, lowest key first."""
        self._merge()
        return self._addresses

    def clear(self) -> None:
        """Forget all."""
        self._new.clear()
        self._keys, self._addresses, self._size = self._keys[:0], self._addresses[:0], 0

    def _merge(self) -> None:
        if not self._new:
            return
        keys = np.concatenate([self._keys, *(keys for keys, _ in self._new)])
        addresses = np.concatenate([self._addresses, *(addresses for _, addresses in self._new)])
        self._new.clear()
        order = np.argsort(keys, kind="stable")
        self._keys, self._addresses = keys[order], addresses[order]
