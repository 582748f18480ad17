"""Keeping the journal short: which snapshot pages to write with a record, and loading pages and records again.

Pages are written a few at a time, those longest unwritten first, each in one commit with a record, so that a page never
contains what is not in the journal. The journal is dropped below the first record that some page still lacks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from blockyard.core.events import Page
from blockyard.core.state import journal
from blockyard.core.state.bitmap import PAGE_BITS, PAGE_BYTES
from blockyard.core.state.leases import Leases
from blockyard.core.state.task import DURABLE, Kind, Task, Tries
from blockyard.plan.grid import Ints
from blockyard.spec.errors import StoreError

if TYPE_CHECKING:
    from blockyard.core.runstate import RunState

PAGES_A_COMMIT = 16
"""128 kB at the most beside a record."""
HEAD = "head"


class Snapshots:
    """Decides which pages go with a record."""

    def __init__(self, every: int) -> None:
        """Begin to write pages when the journal holds `every` records."""
        self._every = every
        self._first = 1
        """First record that the journal still holds."""
        self._head_seq = 0
        self._queue: deque[tuple[Task, Kind, int]] = deque()
        self._round = False

    def whole(self, core: RunState) -> Iterator[Page]:
        """Return every page that holds anything, as of the last record: for a store that has lost records."""
        seq = core.seq
        self._round = False
        self._queue.clear()
        self._head_seq, self._first = seq, seq + 1
        yield Page(HEAD, seq, journal.encode(_head(core)))
        for task in core.tasks:
            for kind in DURABLE:
                bitmap = task.bits[kind]
                bitmap.changed_since[:] = 0
                for number in np.flatnonzero(bitmap.bytes.reshape(-1, PAGE_BYTES).any(axis=1)).tolist():
                    yield Page(f"{task.number}:{kind.value}:{number}", seq, bitmap.page(number))

    def loaded(self, loaded: Loaded) -> None:
        """Go on after a restart."""
        self._first = loaded.first
        self._head_seq = loaded.head_seq

    def due(self, core: RunState) -> tuple[tuple[Page, ...], int]:
        """Return the pages to write with record `core.seq`, as of that record, and the sequence below which to drop."""
        seq = core.seq
        if not self._round and seq - self._first < self._every:
            return (), 0
        pages: list[Page] = []
        if not self._round:
            self._round = True
            self._queue = _oldest_first(core.tasks)
            self._head_seq = seq
            pages.append(Page(HEAD, seq, journal.encode(_head(core))))
        while self._queue and len(pages) < PAGES_A_COMMIT:
            task, kind, number = self._queue.popleft()
            bitmap = task.bits[kind]
            bitmap.changed_since[number] = 0
            pages.append(Page(f"{task.number}:{kind.value}:{number}", seq, bitmap.page(number)))
        if self._queue:
            return tuple(pages), 0
        self._round = False
        unwritten = [int(since.min()) for since in _changed(core.tasks) if len(since)]
        self._first = min([self._head_seq + 1, *unwritten])
        return tuple(pages), self._first


def _head(core: RunState) -> journal.Head:
    """Return the durable state that is not in bitmaps."""
    grants = []
    for grant in (*core.leases.grants(), *core.withdrawn.grants):
        # Only live leases are kept; a grant with ended ones is written as one grant for each run of live ones.
        task = core.tasks[grant.task]
        live = np.flatnonzero(grant.live)
        for run in np.split(live, np.flatnonzero(np.diff(live) != 1) + 1):
            packed = grant.addresses[run].astype(task.address_dtype).tobytes()
            number = grant.number + int(run[0])
            grants.append(journal.GrantRecord(number, grant.task, grant.worker, packed, grant.max_running))
    return journal.Head(
        grants=grants,
        next_number=core.hold.granted_up_to(core.leases),
        tries=[
            journal.TriesRecord(task.number, address, tries)
            for task in core.tasks
            for address, tries in task.tries.items()
        ],
        workers={worker.id: worker.last_seq for worker in core.workers.values()},
        state=core.state,
        retries={task.number: task.retries for task in core.tasks if task.retries},
        stale={worker.id: worker.stale for worker in core.workers.values() if worker.stale},
        reason=core.reason,
        stops=core.fail_fast.stops,
    )


def _changed(tasks: Sequence[Task]) -> list[Ints]:
    since = [task.bits[kind].changed_since for task in tasks for kind in DURABLE]
    return [part[part > 0] for part in since]


def _oldest_first(tasks: Sequence[Task]) -> deque[tuple[Task, Kind, int]]:
    found = []
    for task in tasks:
        for kind in DURABLE:
            since = task.bits[kind].changed_since
            found += [(int(since[page]), task, kind, int(page)) for page in np.flatnonzero(since)]
    found.sort(key=lambda row: row[0])
    return deque((task, kind, page) for _, task, kind, page in found)


@dataclass(slots=True)
class Loaded:
    """What pages and records say, bitmaps apart (those are in the tasks)."""

    seq: int = 0
    first: int = 1
    """First record that is still in the journal."""
    head_seq: int = 0
    state: str = ""
    leases: Leases = field(default_factory=Leases)
    tries: dict[int, dict[int, Tries]] = field(default_factory=dict)
    workers: dict[str, int] = field(default_factory=dict)
    stale: dict[str, dict[int, int]] = field(default_factory=dict)
    retries: dict[int, int] = field(default_factory=dict)
    reason: str = ""
    stops: dict[int, journal.Stop] = field(default_factory=dict)


def load(tasks: Sequence[Task], pages: Iterable[Page], records: Iterable[tuple[int, bytes]]) -> Loaded:
    """Load pages into the bitmaps of new tasks, then replay records. Raises StoreError when a record is missing."""
    loaded = Loaded()
    page_seq = {
        (task.number, kind): np.zeros(len(task.bits[kind].changed_since), np.int64)
        for task in tasks
        for kind in DURABLE
    }
    for page in pages:
        if page.key == HEAD:
            _load_head(loaded, tasks, journal.decode_head(page.data), page.seq)
        else:
            task, kind, number = (int(part) for part in page.key.split(":"))
            tasks[task].bits[Kind(kind)].load_page(number, page.data)
            page_seq[task, Kind(kind)][number] = page.seq
        loaded.seq = max(loaded.seq, page.seq)
    expected = None
    for seq, data in records:
        if expected is not None and seq != expected:
            raise StoreError(f"the journal has record {seq} where {expected} should be: records are missing")
        if expected is None:
            loaded.first = seq
        expected = seq + 1
        record = journal.decode_record(data)
        _replay_bits(tasks, record, seq, page_seq)
        if seq > loaded.head_seq:
            _replay_head(loaded, tasks, record)
        loaded.seq = max(loaded.seq, seq)
    return loaded


def _load_head(loaded: Loaded, tasks: Sequence[Task], head: journal.Head, seq: int) -> None:
    loaded.head_seq = seq
    for grant in head.grants:
        _load_grant(loaded, tasks, grant)
    loaded.leases.next_number = head.next_number
    for row in head.tries:
        if row.tries is not None:
            loaded.tries.setdefault(row.task, {})[row.address] = row.tries
    loaded.workers = dict(head.workers)
    loaded.state = head.state
    loaded.retries = dict(head.retries)
    loaded.stale = {worker: dict(of_worker) for worker, of_worker in head.stale.items()}
    loaded.reason, loaded.stops = head.reason, dict(head.stops)


def _replay_bits(
    tasks: Sequence[Task], record: journal.Record, seq: int, page_seq: dict[tuple[int, Kind], Ints]
) -> None:
    for bits in record.bits:
        task, kind = tasks[bits.task], Kind(bits.kind)
        addresses = np.frombuffer(bits.addresses, task.address_dtype).astype(np.int64)
        # A skipped block is done too, and the record says so once.
        for each in (kind, Kind.DONE) if kind is Kind.SKIPPED else (kind,):
            newer = addresses[page_seq[task.number, each][addresses // PAGE_BITS] < seq]
            if bits.value:
                task.bits[each].set(newer, seq)
            else:
                task.bits[each].clear(newer, seq)


def _replay_head(loaded: Loaded, tasks: Sequence[Task], record: journal.Record) -> None:
    # Ends come before grants: in one turn releases are applied first, and what ends was granted in an earlier one.
    leases = loaded.leases
    for ended in record.ends:
        offsets = np.frombuffer(ended.positions, "<u4").astype(np.int64) if ended.positions else np.arange(ended.count)
        for grant, _, positions in leases.find(ended.number + offsets):
            if grant is not None:
                live = positions[grant.live[positions]]
                if len(live):
                    leases.end(grant, live)
    for granted in record.grants:
        _load_grant(loaded, tasks, granted)
    for row in record.tries:
        of_task = loaded.tries.setdefault(row.task, {})
        if row.tries is None:
            of_task.pop(row.address, None)
        else:
            of_task[row.address] = row.tries
    for worker, last in record.workers.items():
        if last < 0:
            loaded.workers.pop(worker, None)
            loaded.stale.pop(worker, None)
        else:
            loaded.workers[worker] = last
    for worker, of_worker in record.stale.items():
        loaded.stale.setdefault(worker, {}).update(of_worker)
    if record.state:
        loaded.state, loaded.reason = record.state, record.reason
    for task, stop in record.stops.items():
        if stop is None:
            loaded.stops.pop(task, None)
        else:
            loaded.stops[task] = stop
    loaded.retries.update(record.retries)


def _load_grant(loaded: Loaded, tasks: Sequence[Task], record: journal.GrantRecord) -> None:
    addresses = np.frombuffer(record.addresses, tasks[record.task].address_dtype).astype(np.int64)
    loaded.leases.grant(
        record.task, record.worker, addresses, 0.0, max_running=record.max_running, number=record.number
    )
