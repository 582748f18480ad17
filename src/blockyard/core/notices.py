"""What a person should know now: a worker that fails all it gets, a task whose workers can't start, changed code, ...

A notice is derived, not durable: who finds its cause puts it again. One of each kind for a task, worker and pool, in
the order in which they came; a newer text replaces an older one.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from blockyard.wire.api import Notice

MOST = 100
"""Kept at once, so that ten thousand troubled workers do not fill a status; the rest is counted."""


@dataclass(slots=True)
class Notices:
    """The notices of a run."""

    _kept: dict[tuple[str, str, str, str, int], Notice] = field(default_factory=dict)

    def put(self, notice: Notice, number: int = 0) -> bool:
        """Keep a notice; return whether it says something new, so that a log line is worth it.

        `number` keeps several of one kind about the same task apart.
        """
        key = (*_key(notice), number)
        before = self._kept.get(key)
        self._kept[key] = notice
        return before is None or before.text != notice.text

    def drop(self, kind: str, *, task: str | None = None, worker: str | None = None, pool: str | None = None) -> None:
        """Forget notices of a kind that no longer hold; None stands for any task, worker or pool."""
        wanted = (kind, task, worker, pool)
        self._kept = {
            key: notice
            for key, notice in self._kept.items()
            if any(want not in (None, have) for want, have in zip(wanted, key[:4], strict=True))
        }

    def listed(self) -> list[Notice]:
        """Return the first of them, and how many more there are as one more."""
        shown = list(self._kept.values())[:MOST]
        left = len(self._kept) - len(shown)
        return [*shown, Notice(kind="more", text=f"{left:,} more notices are not shown")] if left else shown


def _key(notice: Notice) -> tuple[str, str, str, str]:
    return notice.kind, notice.task, notice.worker, notice.pool
