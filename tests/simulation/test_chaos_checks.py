"""What chaos concludes from evidence: each promise broken in a made-up record is found, and nothing else is."""

from __future__ import annotations

import pytest

from blockyard.core.scheduler import Scheduler
from blockyard.testing.chaos.evidence import Evidence
from blockyard.testing.chaos.pipeline import pipeline
from blockyard.testing.chaos.plan import Plan, draw
from blockyard.testing.chaos.verdict import Verdict, differences, recoveries, table
from blockyard.testing.order import beside_which, waits_of

A, B = ("t", 0), ("t", 1)
WAITS = {A: frozenset(), B: frozenset({A})}


def evidence_of(folder, *processes):
    """Evidence as slots leave it: for each process lines of (what, second, block)."""
    folder.mkdir(exist_ok=True)
    for n, lines in enumerate(processes):
        text = "".join(f"{what} {int(at * 1e9)} t {block} 1\n" for what, at, block in lines)
        (folder / str(n)).write_text(text)
    return Evidence.read(folder)


def test_blocks_one_after_another_are_right(tmp_path):
    """Ends before the next begins, in the right order."""
    evidence = evidence_of(tmp_path / "e", [("begins", 1, 0), ("ends", 2, 0)], [("begins", 2.5, 1), ("ends", 3, 1)])
    assert not list(evidence.overlaps(beside_which(WAITS)))
    assert not list(evidence.too_early(WAITS))
    assert evidence.wasted_s() == 0


def test_a_block_beside_what_it_must_not_run_beside_is_found(tmp_path):
    """Also where the first was killed: its last sign came after the second had begun."""
    evidence = evidence_of(tmp_path / "e", [("begins", 1, 0), ("writes", 3, 0)], [("begins", 2, 0), ("ends", 4, 0)])
    (overlap,) = evidence.overlaps(beside_which(WAITS))
    assert (overlap.first.name, overlap.second.name) == (A, A)


def test_what_was_killed_before_the_next_began_is_no_overlap(tmp_path):
    """It shows no sign after its last one, and cost what it had run."""
    evidence = evidence_of(tmp_path / "e", [("begins", 1, 0), ("writes", 2, 0)], [("begins", 3, 0), ("ends", 4, 0)])
    assert not list(evidence.overlaps(beside_which(WAITS)))
    assert evidence.wasted_s() == pytest.approx(1.0)


def test_a_block_before_what_it_waits_for_is_found(tmp_path):
    """Also where that ended later."""
    evidence = evidence_of(tmp_path / "e", [("begins", 1, 1), ("ends", 2, 1), ("begins", 3, 0), ("ends", 4, 0)])
    ((execution, name),) = evidence.too_early(WAITS)
    assert (execution.name, name) == (B, A)


def test_a_line_cut_off_by_a_kill_is_left_out(tmp_path):
    """A process may die while it writes."""
    (tmp_path / "e").mkdir()
    (tmp_path / "e/1").write_text("begins 1000000000 t 0 1\nwri")
    assert [(e.name, e.ended) for e in Evidence.read(tmp_path / "e").executions] == [(A, False)]


def test_a_seed_repeats_its_faults():
    """The same faults at the same times to the same victims, all within the time; another seed gives others."""
    plan = Plan(seed=7, seconds=60.0)
    faults = list(draw(plan, 3.0))
    assert faults == list(draw(plan, 3.0))
    assert faults != list(draw(Plan(seed=8, seconds=60.0), 3.0))
    assert all(0 < fault.at_s < 60 and (fault.frozen_s > 0) == fault.kind.startswith("freeze") for fault in faults)
    assert len({fault.kind for fault in faults}) == 8


def test_files_that_differ_are_named(tmp_path):
    """Other bytes, a file too many, and one too few."""
    for side, files in (("one", {"a": b"1", "b": b"2", "c": b"3"}), ("other", {"a": b"1", "b": b"x", "d": b"4"})):
        (tmp_path / side).mkdir()
        for name, content in files.items():
            (tmp_path / side / name).write_bytes(content)
    assert differences(tmp_path / "one", tmp_path / "other") == ["b", "c", "d"]


def test_recovery_is_the_time_to_the_next_record():
    """Of each disturbance that was followed by one."""
    assert recoveries([1.0, 5.0, 9.0], [0.5, 2.0, 5.25, 8.0]) == (pytest.approx(0.625), pytest.approx(0.9925))
    assert recoveries([1.0], []) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("finished", False), ("lost", 1), ("counted_twice", 1), ("failed", 1), ("overlaps", ["x"]),
        ("too_early", ["x"]), ("different_files", ["x"]), ("misplaced_records", 1),
    ],
)  # fmt: skip
def test_one_broken_promise_is_enough(field, value):
    """The verdict is good only if everything is."""
    good = {
        "seed": 1, "seconds": 1.0, "finished": True, "faults": {}, "blocks": 2, "executions": 2, "lost": 0,
        "counted_twice": 0, "failed": 0, "overlaps": [], "too_early": [], "different_files": [], "misplaced_records": 0,
        "wasted_s": 0.0, "worked_s": 1.0, "recovery_median_s": 0.0, "recovery_p99_s": 0.0,
    }  # fmt: skip
    assert Verdict(**good).ok
    bad = Verdict(**good | {field: value})
    assert not bad.ok
    assert "A PROMISE WAS BROKEN" in table(bad)


def test_the_disturbed_pipeline_has_conflicts_and_a_chain(tmp_path):
    """Else a wrong order would not show: blocks wait in their own task and for the one before."""
    waits = waits_of(Scheduler(pipeline(tmp_path, 4, 0.0)))
    assert {task for (own, _), others in waits.items() if own == "sweep" for task, _ in others} == {"soften", "sweep"}
