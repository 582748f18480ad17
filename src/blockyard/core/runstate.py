"""All that is known of a run while it is led: its tasks, leases and workers, and what follows from them.

`scheduler.py` changes it, one event after the other; the rules that it needs for that (`assign.py`, `undo.py`, ...) and
`blockyard.views` are functions of it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from blockyard.core import events as ev
from blockyard.core.code import CodeVersions
from blockyard.core.failfast import FailFast
from blockyard.core.health import Health
from blockyard.core.listeners import Listeners
from blockyard.core.notices import Notices
from blockyard.core.observer import Observer, Unobserved
from blockyard.core.over import Over
from blockyard.core.ready.activity import Activity
from blockyard.core.ready.frontier import Frontier, connect_frontiers
from blockyard.core.ready.retries import Retries
from blockyard.core.seconds import MOST_SKIPS, BlockSeconds
from blockyard.core.settings import CoreSettings
from blockyard.core.state.bitmap import Bitmap
from blockyard.core.state.hold import RecoveryHold
from blockyard.core.state.leases import Leases
from blockyard.core.state.task import Task, connect
from blockyard.core.state.withdrawn import Withdrawn
from blockyard.core.state.workers import Worker
from blockyard.core.turn import Turn
from blockyard.core.unstarted import Unstarted
from blockyard.plan.grid import Grid, Ints
from blockyard.plan.requests import run_boxes
from blockyard.plan.zorder import ZOrder
from blockyard.spec.model import RunSpec
from blockyard.wire.states import RunPhase


class RunState:
    """All blocks, leases and workers of one run."""

    def __init__(self, run: RunSpec, *, epoch: int, settings: CoreSettings, now: float) -> None:
        """Nothing has happened yet."""
        self.run = run
        self.epoch = epoch
        self.settings = settings
        self.seq = 0
        """Sequence of the last record given out."""
        grids = {task.id: Grid.of(task) for task in run.pipeline.tasks}
        boxes = run_boxes(run, grids)
        specs = {task.id: task for task in run.pipeline.tasks}
        ids = run.numbered or tuple(boxes)
        self.tasks = [Task(n, specs[id_], grids[id_], boxes.get(id_, ())) for n, id_ in enumerate(ids)]
        self.by_id = {task.spec.id: task for task in self.tasks}
        connect(self.tasks)
        self.leases = Leases()
        self.hold = RecoveryHold()
        self.withdrawn = Withdrawn()
        self.retries = Retries()
        zorder = ZOrder({task.spec.id: task.grid for task in self.tasks})
        self.activity = Activity()
        self.frontiers = {
            task.number: Frontier(task, zorder, self._taken(task.number), self.activity) for task in self.tasks
        }
        connect_frontiers(self.frontiers)
        for frontier in self.frontiers.values():
            frontier.reset()
        self.workers: dict[str, Worker] = {}
        self.allotted: dict[int, dict[str, int]] = {task.number: {} for task in self.tasks}
        """For tasks with `num_workers`: how many blocks each worker may run at once."""
        self.seconds = BlockSeconds(least_skip_s=self.settings.batch_s / MOST_SKIPS)
        self.observer: Observer = Unobserved()
        """Is told what blocks took."""
        self.started_s = now
        self.over = Over()
        self.fail_fast = FailFast()
        self.health = Health()
        self.notices = Notices()
        self.unstarted = Unstarted(self.notices)
        self.listeners = Listeners(self.unstarted)
        self.code = CodeVersions(self.notices)
        self.turn = Turn()

    # --- asking ------------------------------------------------------------------------------------------------

    @property
    def state(self) -> RunPhase:
        """Where the run is."""
        return self.over.phase

    @property
    def reason(self) -> str:
        """Why it is paused, where no person did that; "": nothing is to be said."""
        return self.over.reason

    @property
    def is_over(self) -> bool:
        """Whether the run has ended."""
        return self.over.is_over

    @property
    def has_stopped(self) -> bool:
        """Whether nothing will run unless a person does something."""
        return self.over.has_stopped

    @property
    def tasks_over(self) -> set[int]:
        """Numbers of the tasks of which it was announced that no block will run any more."""
        return self.over.tasks

    def ready_count(self, task: int) -> int:
        """Count the blocks of a task found ready, those awaiting a retry included."""
        return len(self.frontiers[task].ready) + len(self.retries.delayed(task))

    def ready_addresses(self, number: int) -> Ints:
        """Return the addresses of a task's blocks found ready, those awaiting the end of a backoff included."""
        return np.concatenate([self.frontiers[number].ready.addresses(), self.retries.delayed(number)])

    def _taken(self, number: int) -> Callable[[], Ints]:
        return lambda: np.concatenate([self.leases.addresses(number), self.retries.delayed(number)])

    # --- changing ----------------------------------------------------------------------------------------------

    def lease(self, worker: Worker, task: Task, addresses: Ints, now: float, max_running: int) -> None:
        """Lease blocks to a worker (called by `assign`)."""
        grant = self.leases.grant(task.number, worker.id, addresses, now, max_running=max_running)
        self.observer.leased(task.number, len(addresses), now)
        self.listeners.leased(worker, len(addresses))
        self.turn.note_grant(task, grant)
        attempts = task.attempts(addresses)
        blocks = task.grid.ravel(task.layout.indices(addresses))
        self.turn.effects.append(ev.SendLeases(worker.id, grant.number, task.spec.id, blocks, attempts, max_running))

    def revoke(self, task: Task, blocks: Bitmap) -> dict[str, Ints]:
        """End all leases on these blocks of a task; give the lease numbers by worker."""
        revoked: dict[str, list[Ints]] = {}
        for grant in [grant for grant in self.leases.grants() if grant.task == task.number]:
            positions = np.flatnonzero(grant.live & blocks.test(grant.addresses))
            if len(positions):
                self.turn.note_end(grant, positions)
                self.leases.end(grant, positions)
                revoked.setdefault(grant.worker, []).append(grant.number + positions)
        return {worker: np.concatenate(numbers) for worker, numbers in revoked.items()}
