"""One bit for each address of a task, in pages that remember since when they differ from the snapshot."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from blockyard.plan.grid import Ints

PAGE_BYTES = 8192
"""A page covers 65,536 blocks: one snapshot write is small, and 10^9 blocks are 15,259 pages."""
PAGE_BITS = PAGE_BYTES * 8


class Bitmap:
    """Bits by address. numpy takes the memory zeroed from the system: a part never touched costs nothing."""

    __slots__ = ("bytes", "changed_since")

    def __init__(self, addresses: int) -> None:
        pages = -(-addresses // PAGE_BITS)
        self.bytes = np.zeros(pages * PAGE_BYTES, np.uint8)
        self.changed_since = np.zeros(pages, np.int64)
        """For each page the first journal sequence that is not in its snapshot; 0: none."""

    def set(self, addresses: Ints, seq: int) -> None:
        """Set the bits of these addresses (any order, repeats allowed), as part of journal record `seq`."""
        at, masks = _byte_masks(addresses)
        self.bytes[at] |= masks
        self._touch(at, seq)

    def clear(self, addresses: Ints, seq: int) -> None:
        """Clear the bits of these addresses."""
        at, masks = _byte_masks(addresses)
        self.bytes[at] &= ~masks
        self._touch(at, seq)

    def test(self, addresses: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Return the bits of an array of addresses of any shape."""
        return (self.bytes[addresses >> 3] >> (addresses & 7).astype(np.uint8)) & 1 != 0

    def chunk_counts(self, chunks: int, capacity: int) -> Ints:
        """Count the set bits of every chunk."""
        words = self.bytes[: chunks * capacity // 8].view(np.uint64)
        counts = np.empty(chunks, np.int64)
        per_chunk = capacity // 64
        step = max(1, 2**16 // per_chunk)
        for start in range(0, chunks, step):
            part = words[start * per_chunk : (start + step) * per_chunk]
            counts[start : start + step] = np.bitwise_count(part).reshape(-1, per_chunk).sum(axis=1, dtype=np.int64)
        return counts

    def addresses(self) -> Ints:
        """Return all set addresses, ascending; for bitmaps with few bits set."""
        at = np.flatnonzero(self.bytes)
        bits = np.unpackbits(self.bytes[at][:, None], axis=1, bitorder="little")
        row, bit = np.nonzero(bits)
        return (at[row] << 3) + bit

    def zero(self, seq: int) -> None:
        """Clear every bit."""
        touched = np.flatnonzero(self.bytes.reshape(-1, PAGE_BYTES).any(axis=1))
        for page in touched:
            self.bytes[page * PAGE_BYTES : (page + 1) * PAGE_BYTES] = 0
            if not self.changed_since[page]:
                self.changed_since[page] = seq

    def page(self, number: int) -> bytes:
        """Return the content of one page."""
        return self.bytes[number * PAGE_BYTES : (number + 1) * PAGE_BYTES].tobytes()

    def load_page(self, number: int, content: bytes) -> None:
        """Take the content of one page from a snapshot."""
        self.bytes[number * PAGE_BYTES : (number + 1) * PAGE_BYTES] = np.frombuffer(content, np.uint8)

    def _touch(self, at: Ints, seq: int) -> None:
        if len(at) == 1:
            page = at[0] // PAGE_BYTES
            self.changed_since[page] = self.changed_since[page] or seq
            return
        pages = np.unique(at // PAGE_BYTES)
        clean = pages[self.changed_since[pages] == 0]
        self.changed_since[clean] = seq


def _byte_masks(addresses: Ints) -> tuple[Ints, npt.NDArray[np.uint8]]:
    """Return the bytes that hold these bits, and the mask for each (10 times faster than `bitwise_or.at`)."""
    if not len(addresses):
        return addresses, np.empty(0, np.uint8)
    if len(addresses) == 1:
        return addresses >> 3, np.array([1 << (int(addresses[0]) & 7)], np.uint8)
    ordered = np.sort(addresses)
    at = ordered >> 3
    first = np.flatnonzero(np.concatenate(([True], at[1:] != at[:-1])))
    bits = np.left_shift(np.uint8(1), (ordered & 7).astype(np.uint8))
    return at[first], np.bitwise_or.reduceat(bits, first)
