"""A core of one task, for tests of what follows from how its blocks end."""

import numpy as np

from blockyard.core import events as ev
from blockyard.core.scheduler import CoreSettings, Scheduler
from blockyard.spec.model import PipelineSpec, RoiSpec, RunSpec, TaskSpec
from blockyard.views.observed import ObservedRun
from blockyard.wire.messages import Outcome


class Run:
    """A core of one task of independent blocks, and workers that do as the test says."""

    def __init__(self, blocks, history_blocks=0, **settings):
        shape, one = RoiSpec((0,), (blocks,)), RoiSpec((0,), (1,))
        rois = {"total_roi": shape, "read_roi": one, "write_roi": one, "read_write_conflict": False}
        work = TaskSpec(id="work", function="json:dumps", max_retries=2, **rois)
        self.core = Scheduler(RunSpec(PipelineSpec(name="run", tasks=(work,))), settings=CoreSettings(**settings))
        self.observed = ObservedRun(self.core, history_blocks)
        self.now = 0.0
        self.seqs = {}
        self.notes = []

    def join(self, *workers, slots=1):
        for worker in workers:
            self.core.handle(ev.WorkerJoined(worker, slots=slots), self.now)

    def turn(self):
        """Give (worker, lease, block, attempt) of all that was leased."""
        effects = self.core.handle(ev.TurnEnded(), self.now)
        self.notes += [note for effect in effects if isinstance(effect, ev.CommitRecord) for note in effect.errors]
        return [
            (effect.worker, effect.number + at, block, effect.attempts.get(at, 1))
            for effect in effects
            if isinstance(effect, ev.SendLeases)
            for at, block in enumerate(effect.blocks.tolist())
        ]

    def lease(self, *workers):
        """All of these want one block."""
        for worker in workers:
            self.core.handle(ev.BlocksWanted(worker, 1), self.now)
        return self.turn()

    def release(self, worker, number, outcome=Outcome.SUCCESS, seconds=1.0):
        self.seqs[worker] = self.seqs.get(worker, 0) + 1
        outcomes, taken = np.array([outcome], np.uint8), np.array([seconds], np.float32)
        self.core.handle(ev.BlocksReleased(worker, self.seqs[worker], np.array([number]), outcomes, taken), self.now)

    def tries(self, outcome, most=30):
        """One block ends like this again and again: give (attempt, seconds waited) of each time it was leased."""
        seen, waited_s = [], 0.0
        while self.core.state == "running" and len(seen) < most:
            leased = self.lease("w")
            if not leased and not self.core.is_over:
                self.now += 0.25
                waited_s += 0.25
                self.core.handle(ev.WorkerHeard("w"), self.now)
                continue
            for worker, number, _, attempt in leased:
                seen.append((attempt, waited_s))
                waited_s = 0.0
                self.release(worker, number, outcome)
        return seen
