"""Failed attempts grouped by what is wrong, so that a thousand failures of one cause are one line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from blockyard.wire.api import FailureGroup, Failures, FailureStatus

NUMBER = re.compile(r"0x[0-9a-fA-F]+|-?\d+(\.\d+)?")
BLOCKS_SHOWN = 20
FAILURES_SHOWN = 1000


def group_failures(
    failures: Sequence[FailureStatus], shown: int = FAILURES_SHOWN, most_groups: int | None = None
) -> Failures:
    """Group attempts by task, kind and message without its numbers; the most frequent first.

    Gives `shown` attempts whole, and up to `most_groups` groups: messages that name their block make one each.
    """
    found: dict[tuple[str, str, str], list[FailureStatus]] = {}
    for failure in failures:
        found.setdefault((failure.task, *_cause(failure.kind, failure.message)), []).append(failure)
    groups = [_group(members) for members in found.values()]
    groups.sort(key=lambda group: (-group.failed, -group.attempts, group.task, group.message))
    return Failures(
        attempts=len(failures),
        failed=_count_failed(failures),
        groups=groups[:most_groups],
        n_groups=len(groups),
        failures=list(failures[:shown]),
    )


def failed_like(failures: Iterable[FailureStatus], kind: str, message: str) -> list[int]:
    """Return the ids of blocks that failed for good by this error, whatever the numbers in its message are."""
    cause = _cause(kind, message)
    return sorted(
        {failure.block_id for failure in failures if failure.final and _cause(failure.kind, failure.message) == cause}
    )


def _cause(kind: str, message: str) -> tuple[str, str]:
    return kind, NUMBER.sub("#", message)


def _group(members: Sequence[FailureStatus]) -> FailureGroup:
    first = members[0]
    return FailureGroup(
        task=first.task,
        kind=first.kind,
        message=first.message,
        attempts=len(members),
        failed=_count_failed(members),
        blocks=sorted({member.block_id for member in members})[:BLOCKS_SHOWN],
        example=next((member for member in members if member.final), first),
    )


def _count_failed(failures: Iterable[FailureStatus]) -> int:
    return len({(failure.task, failure.block_id) for failure in failures if failure.final})
