"""A run that is led, with its record and its forecast: whoever drives the turns asks here what others want to know."""

from __future__ import annotations

from blockyard.core.observer import shapes_of
from blockyard.core.scheduler import Scheduler
from blockyard.record.run_record import RunRecord
from blockyard.views.describe import describe_run
from blockyard.views.explain import explain
from blockyard.views.forecast import Forecast
from blockyard.wire.api import Explanation, RunStatus


class ObservedRun:
    """The core, what is recorded of it, and when it will be done."""

    def __init__(self, core: Scheduler, history_blocks: int = 0) -> None:
        """Begin to record; the history has up to `history_blocks` places for blocks, 0: there is none."""
        self.core = core
        self.record = RunRecord(shapes_of(core.tasks), history_blocks)
        self.forecast = Forecast(core.tasks)
        core.observer = self.record

    def turned(self, now: float) -> None:
        """A turn has ended, at `now`: to be called after each, so that the forecast sees the run as it goes."""
        self.forecast.look(self.core, self.record.measures, now)

    def status(self, now: float) -> RunStatus:
        """Describe the run."""
        measures = self.record.measures
        return describe_run(self.core, measures, self.forecast.etas(self.core, measures), now)

    def explain(self, task: str, block_id: int, now: float) -> Explanation:
        """Say why a block is in the state it is in. Raises SpecError for an unknown task or block."""
        return explain(self.core, self.record.history, task, block_id, now)
