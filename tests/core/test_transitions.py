"""How a run goes from state to state. (Blocks: `moves.py`, in the tests that drive the core at random.)"""

import pytest

from blockyard.core import events as ev
from blockyard.core.over import Over
from blockyard.core.scheduler import Scheduler
from blockyard.core.state.journal import Record
from blockyard.core.state.transitions import RUN, RunCause
from blockyard.spec.errors import StoreError
from blockyard.spec.model import PipelineSpec, RoiSpec, RunSpec, TaskSpec
from blockyard.wire.states import ENDED, RunPhase

LED = [phase for phase in RunPhase if phase is not RunPhase.STOPPED]
BY_A_PERSON = (RunCause.PAUSED, RunCause.RESUMED, RunCause.CANCELLED, RunCause.UNDONE)


@pytest.mark.parametrize("cause", RunCause)
@pytest.mark.parametrize("phase", RunPhase)
def test_a_missing_row_is_an_error_that_changes_nothing(phase, cause):
    """What a person asks for has a row everywhere; what is over goes on by that alone."""
    over, record = Over(), Record()
    over.load(phase, "because")
    if (phase, cause) not in RUN:
        assert cause not in BY_A_PERSON or phase is RunPhase.STOPPED
        with pytest.raises(RuntimeError, match=f"a run that is {phase} cannot be {cause.value}"):
            over.change(cause, record)
        assert (over.phase, over.reason, record) == (phase, "because", Record())
        return
    after = RUN[phase, cause]
    assert phase not in ENDED or after is phase or cause in {RunCause.UNDONE, RunCause.RESUMED, RunCause.ASKED_ANEW}
    over.change(cause, record, "new")
    kept = (phase, "because", Record())
    assert (over.phase, over.reason, record) == (
        kept if after is phase else (after, "new", Record(state=after, reason="new"))
    )


@pytest.mark.parametrize("phase", LED)
def test_a_restart_goes_on_in_the_same_state(phase):
    """As the journal says it, in its plain words; a word that there is not is refused."""
    one = RoiSpec((0,), (1,))
    task = TaskSpec(id="a", function="m:f", total_roi=one, read_roi=one, write_roi=one, read_write_conflict=False)
    run = RunSpec(PipelineSpec(name="run", tasks=(task,)))
    core = Scheduler(run)
    core.handle(ev.PauseRequested(), 0.0)
    (record,) = [effect for effect in core.handle(ev.TurnEnded(), 0.0) if isinstance(effect, ev.CommitRecord)]
    said = record.record.replace(b"\xa6paused", bytes([0xA0 + len(phase)]) + phase.encode())
    worked_off = phase in {RunPhase.DONE, RunPhase.FAILED}  # which its blocks do not bear out
    assert Scheduler.restore(run, [], [(1, said)]).state is (RunPhase.RUNNING if worked_off else phase)
    with pytest.raises(StoreError, match="'pauzed'"):
        Scheduler.restore(run, [], [(1, record.record.replace(b"paused", b"pauzed"))])
