"""Which code the blocks of each task ran: one digest a task, and a notice where workers import another.

A module that is edited while a run goes on is imported anew by each slot that starts anew, and by all of them after a
resume: then one result is made by two versions. That may be wanted; it is said. The first version that finished blocks
is the run's; who drives the core keeps it (`unsaved`) and gives it back (`load`), for a successor to compare with.
"""

from __future__ import annotations

from collections.abc import Mapping

from blockyard.core.notices import Notices
from blockyard.wire.api import Notice

KIND = "code_changed"


class CodeVersions:
    """The versions of a run's code."""

    def __init__(self, notices: Notices) -> None:
        self.unsaved: dict[str, str] = {}
        """Task to the digest to keep for it; who has kept it takes it out."""
        self._notices = notices
        self._first: dict[str, str] = {}
        self._heard: dict[str, dict[str, set[str]]] = {}
        """Task to each worker that is there, to what it runs."""
        self._news: list[str] = []

    def load(self, kept: Mapping[str, str]) -> None:
        """Take what was kept of earlier schedulers of this run."""
        self._first |= kept

    def heard(self, worker: str, task: str, code: str, *, begun: bool) -> None:
        """A worker runs this code for a task, of which blocks are finished if it has `begun`."""
        workers = self._heard.setdefault(task, {})
        if task not in self._first or not (begun or workers):  # without a block of another version nothing is mixed
            self._first[task] = self.unsaved[task] = code
            self._notices.drop(KIND, task=task)
        workers.setdefault(worker, set()).add(code)
        if code != self._first[task]:
            text = (
                f"the code of task '{task}' was changed since its first blocks ran: workers that started later import"
                " another version of its module, or of one that this imports. What is done stays as it is; with"
                " --fresh one version runs all blocks"
            )
            if self._notices.put(Notice(KIND, text, task)):
                self._news.append(text)

    def left(self, worker: str) -> None:
        """A worker is gone, and what it ran with it; what it has finished counts."""
        for workers in self._heard.values():
            workers.pop(worker, None)

    def take_news(self) -> list[str]:
        """Return what was found since the last time, for the log."""
        news, self._news = self._news, []
        return news
