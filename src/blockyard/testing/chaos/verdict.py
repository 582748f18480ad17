"""What chaos has shown: bytes, counts and evidence against what the promises say, as a table."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
import numpy as np


class Verdict(msgspec.Struct, kw_only=True):
    """One disturbed run beside an undisturbed one."""

    seed: int
    seconds: float
    """Faults happened for so long."""
    finished: bool
    """Whether the run ended in time with every block done."""
    faults: dict[str, int]
    blocks: int
    executions: int
    """Blocks begun by slots, by their own word."""
    lost: int
    """Blocks that are not done in the journal (P2, P5)."""
    counted_twice: int
    """Blocks that became done in the journal more than once (P1)."""
    failed: int
    """Blocks that have failed although none ever fails by itself (P6)."""
    overlaps: list[str]
    """What ran at once and must not (P3); the first few."""
    too_early: list[str]
    """What began before what it waits for (P4); the first few."""
    different_files: list[str]
    """Files of the output that are not byte by byte those of the undisturbed run."""
    misplaced_records: int
    """Records in Redis' file that do not follow the one before them."""
    wasted_s: float
    worked_s: float
    """Seconds in blocks, the wasted ones included."""
    recovery_median_s: float
    """From the death or freezing of a leader or Redis to the next record in the journal."""
    recovery_p99_s: float

    @property
    def ok(self) -> bool:
        """Whether every promise was kept."""
        counts = (self.lost, self.counted_twice, self.failed, self.misplaced_records)
        return self.finished and not any((*counts, self.overlaps, self.too_early, self.different_files))


def table(verdict: Verdict) -> str:
    """Return the verdict for a person."""
    kinds = ", ".join(f"{n} x {kind}" for kind, n in sorted(verdict.faults.items()))
    rows = [
        ("faults", f"{sum(verdict.faults.values())} in {verdict.seconds:g} s (seed {verdict.seed}): {kinds or 'none'}"),
        ("blocks", f"{verdict.blocks:,}, begun {verdict.executions:,} times"),
        ("lost", f"{verdict.lost:,}"),
        ("counted twice", f"{verdict.counted_twice:,}"),
        ("failed", f"{verdict.failed:,}"),
        ("records out of order", f"{verdict.misplaced_records:,}"),
        ("ran at once and must not", _some(verdict.overlaps)),
        ("began too early", _some(verdict.too_early)),
        ("output files that differ", _some(verdict.different_files)),
        ("wasted", f"{verdict.wasted_s:.1f} of {verdict.worked_s:.1f} s in blocks"),
        ("time to recovery", f"{verdict.recovery_median_s:.2f} s (median), {verdict.recovery_p99_s:.2f} s (p99)"),
    ]
    if not verdict.finished:
        rows.append(("the run", "did not end in time"))
    width = max(len(name) for name, _ in rows)
    lines = [f"{name.ljust(width)}  {value}" for name, value in rows]
    return "\n".join([*lines, "every promise was kept" if verdict.ok else "A PROMISE WAS BROKEN"])


def _some(found: list[str]) -> str:
    return f"{len(found)}: {'; '.join(found[:3])}" if found else "0"


def differences(one: Path, other: Path) -> list[str]:
    """Name the files below two folders that are not the same, byte by byte."""
    ours, theirs = _digests(one), _digests(other)
    return sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))


def _digests(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).digest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def recoveries(disturbed_s: list[float], grew_s: list[float]) -> tuple[float, float]:
    """Return median and p99 of the time from each disturbance to the next growth of the journal; 0 where none came."""
    grew = np.asarray(grew_s)
    found = [float(grew[grew > at].min() - at) for at in disturbed_s if (grew > at).any()]
    return (float(np.median(found)), float(np.percentile(found, 99))) if found else (0.0, 0.0)
