"""When a run will be done: shared slots, upstream, ranges, and the past that it is judged by."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import pytest

from blockyard.views.eta import BlockTime, Eta, Load, block_time, forecast, whole_run
from blockyard.views.usage import Pace, Usage

ROOT = Path(__file__).parents[2]
NOTHING = Usage(0.0, 0.0, 0.0)


def load(unfinished=100, *, seconds=10.0, error=0.0, **fields):
    fields = {"pool": 0, "running": 0, "share": 1.0} | fields
    return Load(unfinished=unfinished, block=BlockTime(seconds, error), **fields)


def points(loads, slots=(10.0,)):
    return [None if eta is None else round(eta.point_s) for eta in forecast(loads, slots)]


def test_a_task_alone_has_all_slots():
    """100 blocks of 10 s on 10 slots: 100 s, and half a block for the time in which slots run dry."""
    assert points([load()]) == [105]
    assert points([load(running=10)]) == [100]  # half of what runs is done


def test_tasks_share_slots_and_inherit_them():
    """Two tasks with equal shares: the shorter ends at half speed, the longer when all work is done."""
    assert points([load(50), load(150)]) == [105, 205]


def test_a_task_that_waits_for_another_ends_after_it():
    """However fast it went lately: its blocks wait for upstream's."""
    up, down = load(100, share=5.0), load(10, share=5.0, upstream=(0,))
    ends = forecast([up, down], [10.0])
    assert ends[1].point_s > ends[0].point_s


def test_a_task_with_few_workers_takes_its_own_time():
    """`num_workers` holds also where slots are many."""
    assert points([load(num_workers=2)]) == [505]


def test_pools_do_not_help_each_other():
    assert points([load(), load(pool=1)], (10.0, 5.0)) == [105, 205]


@pytest.mark.parametrize("slots", [0.0, 10.0], ids=["nobody works", "not measured"])
def test_what_is_unknown_is_not_guessed(slots):
    """No workers, or no block of a task measured: its end is unknown, with all that waits for it, and the run's."""
    first = Load(pool=0, unfinished=5, running=0, block=BlockTime(1.0, 0.1) if not slots else None, share=0.0)
    ends = forecast([first, load(upstream=(0,)), load(0)], [slots])
    assert ends == [None, None, Eta(0.0, 0.0, 0.0)]
    assert whole_run(ends) is None


def test_a_finished_run_ends_now():
    assert whole_run(forecast([load(0), load(0)], [10.0])) == Eta(0.0, 0.0, 0.0)


def test_the_range_is_wide_where_little_is_known():
    """Around the point; wider with fewer or more different blocks, and when the window contradicts the past."""

    def width(**known):
        fields = {"window": Usage(1000, 1000, 100), "whole": Usage(1000, 1000, 100), "slots": 5, "variation": 0.3}
        measured = block_time(**fields | known)
        (end,) = forecast([Load(pool=0, unfinished=1000, running=0, block=measured, share=1.0)], [10.0])
        assert end.low_s < end.point_s < end.high_s
        return end.high_s / end.low_s

    usual = width()
    assert width(window=Usage(30, 30, 3), whole=Usage(30, 30, 3)) > usual
    assert width(variation=3.0) > usual
    assert width(whole=Usage(10_000, 10_000, 400)) > usual


def test_a_block_takes_what_it_takes_a_slot_also_between_blocks():
    """Half the time of a slot is spent between blocks: they cost twice what they take."""
    measured = block_time(Usage(2000, 1000, 1000), Usage(2000, 1000, 1000), slots=10, variation=0.0)
    assert measured.seconds == pytest.approx(2.0, rel=0.05)
    assert block_time(NOTHING, NOTHING, slots=1, variation=0.0) is None


# ----- the past -----------------------------------------------------------------------------------------------------


def look(pace, now, *, busy=4.0, slots=8.0, done=0.0, runs=True):
    pace.look(now, busy=[busy], slots=[slots], done=[done], work_s=[done], runs=runs)


def test_the_window_is_two_minutes_and_the_whole_is_all():
    pace = Pace(1, 1)
    for now in range(301):
        look(pace, now, busy=2.0 if now < 180 else 6.0, done=float(now))
    assert pace.window().seconds == 120
    assert pace.window().of(0) == Usage(720, 120, 120)
    assert pace.window().slots_s[0] == 120 * 8
    assert pace.whole().of(0) == Usage(180 * 2 + 120 * 6, 300, 300)


def test_a_pause_is_not_in_the_window():
    """Ten minutes of pause are no reason to think that slots idle."""
    pace = Pace(1, 1)
    for now in range(60):
        look(pace, now)
    for now in range(60, 660):
        look(pace, now, busy=0.0, runs=False)
    for now in range(660, 680):
        look(pace, now)
    assert pace.window().busy_s[0] == pytest.approx(4 * pace.window().seconds)
    assert pace.window().seconds == 79


# ----- whole runs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", ["steady", "chain of three tasks", "restart of the scheduler"])
def test_it_is_nearer_than_the_simple_rule_on_simulated_runs(scenario, monkeypatch):
    """Through the real core; `benchmarks/eta.py` has more scenarios, seeds and figures."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    benchmark = import_module("eta")
    moments = [moment for seed in (1, 2) for moment in benchmark.moments_of((scenario, seed))]
    assert benchmark.middle(moments, 0) < benchmark.middle(moments, 1)
    assert benchmark.percent([moment.inside for moment in moments if moment.inside is not None]) >= 60
    sys.modules.pop("eta", None)
