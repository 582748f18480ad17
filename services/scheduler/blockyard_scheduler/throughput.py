"""How fast the run went since this leader began: a fixed number of samples, coarser as the run gets longer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

MOST_SAMPLES = 240
FIRST_BUCKET_S = 1.0


class Throughput(msgspec.Struct, kw_only=True):
    """What was finished in each interval, by task, oldest first; the last interval is not over yet."""

    bucket_s: float
    """Length of an interval."""
    blocks: dict[str, list[int]]
    """Done or skipped."""
    voxels: dict[str, list[int]]
    """Written."""


class Recorder:
    """Keeps the counts at the ends of intervals; when there are too many, every other one is dropped."""

    def __init__(self) -> None:
        self._bucket_s = FIRST_BUCKET_S
        self._began_s: float | None = None
        self._ends: list[tuple[dict[str, int], dict[str, int]]] = []
        """Blocks and voxels at the end of each interval; those of the last one so far."""

    def add(self, blocks: Mapping[str, int], voxels: Mapping[str, int], now: float) -> None:
        """Take what each task has finished in all until `now`; counts only grow."""
        if self._began_s is None:
            self._began_s = now
        while (place := int((now - self._began_s) / self._bucket_s)) >= MOST_SAMPLES:
            self._halve()
        last = self._ends[-1] if self._ends else (dict.fromkeys(blocks, 0), {})
        self._ends += [last] * (place - len(self._ends))  # nobody looked meanwhile: it counts now
        self._ends[place:] = [(dict(blocks), dict(voxels))]

    def _halve(self) -> None:
        """Make two intervals one; an odd last one goes on as the first half of its interval."""
        odd = self._ends[-1:] if len(self._ends) % 2 else []
        self._ends = self._ends[1::2] + odd
        self._bucket_s *= 2

    def give(self) -> Throughput:
        """Return what was finished in each interval."""
        names = list(self._ends[-1][0]) if self._ends else []
        return Throughput(
            bucket_s=self._bucket_s,
            blocks=_differences([blocks for blocks, _ in self._ends], names),
            voxels=_differences([voxels for _, voxels in self._ends], names),
        )


def _differences(ends: Sequence[Mapping[str, int]], names: Sequence[str]) -> dict[str, list[int]]:
    by_name = {name: [counts.get(name, 0) for counts in ends] for name in names}
    return {
        name: [now - before for before, now in zip([0, *totals], totals, strict=False)]
        for name, totals in by_name.items()
    }
