"""A run that is started again with another request: what is done stays done, the rest of what is wanted runs."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated_run import Sizes, World, settings_of_the_core, sizes, with_sizes
from test_core_against_oracle import Driver, Fates

from blockyard.core import events as ev
from blockyard.core.scheduler import CoreSettings
from blockyard.spec.model import RunSpec
from blockyard.testing.strategies import runs, targets

pytestmark = pytest.mark.timeout(900)  # many cases, on a machine that may be busy


@given(
    data=st.data(),
    run=runs(),
    seed=st.integers(0, 2**32 - 1),
    share=st.sampled_from((0.0, 0.1)),
    tuning=settings_of_the_core,
    chosen=sizes(),
)
def test_any_requests_one_after_the_other_end_as_the_oracle_says(
    data: st.DataObject, run: RunSpec, seed: int, share: float, tuning: CoreSettings, chosen: Sizes
):
    """Larger, smaller or apart, of these tasks or of others, in mid-run or after its end.

    Each grant is checked: only blocks of the run, none that is done, none beside one that it conflicts with.
    """
    rng = random.Random(seed)
    whole = World(RunSpec(run.pipeline), tuning)
    with with_sizes(chosen):
        world = World(run, tuning)
        driver = Driver(world, Fates(whole.oracle, rng, share), rng)
        driver.kinds = Driver(whole, driver.fates, rng).kinds
        for wanted in [None, *data.draw(st.lists(st.none() | targets(run.pipeline), min_size=1, max_size=3))]:
            for _ in range(data.draw(st.sampled_from((0, 10, 60)))):
                driver.step()
            if rng.random() < 0.3:
                driver.drain()
            if rng.random() < 0.3:
                world.tell(ev.RerunRequested(rng.choice([None, *world.oracle.order]), None))
            world.turn()
            world.ask(wanted)
            for worker in [worker for worker in world.workers.values() if rng.random() < 0.8]:
                world.join(worker)
        driver.drain()
        world.check_replay()
    assert world.model.done <= set(world.leases_in_order)
