"""The scheduler's pure parts: settings, what a resumed run may change, reports, groups of failures."""

from __future__ import annotations

import msgspec
import pytest
from scheduler_rig import run_of, task

from blockyard.spec.errors import SpecError
from blockyard.spec.model import RoiSpec, RunSpec, Target
from blockyard.wire.api import FailureStatus, RunStatus, TaskStatus, WorkerStatus
from blockyard.wire.failures import group_failures
from blockyard.wire.report import status_report
from blockyard_scheduler.resume import other_request, resumed
from blockyard_scheduler.settings import read_settings

PIPELINE = """
name: tiny
tasks:
  - id: work
    function: json:dumps
    total_roi: {offset: [0], shape: [10]}
    read_roi: {offset: [0], shape: [1]}
    write_roi: {offset: [0], shape: [1]}
"""

# ----- settings -----------------------------------------------------------------------------------------------------


@pytest.fixture
def pipeline(tmp_path):
    path = tmp_path / "pipeline.yaml"
    path.write_text(PIPELINE)
    return ["--pipeline", str(path), "--redis-url", "redis://localhost/0"]


def test_a_flag_beats_a_variable_beats_the_default(pipeline):
    """Every setting is a flag and a variable."""
    environ = {"BLOCKYARD_LEASE_S": "30", "BLOCKYARD_LOCK_S": "7", "BLOCKYARD_EXIT_WHEN_DONE": "true"}
    settings = read_settings([*pipeline, "--lease-s", "20"], environ)
    assert (settings.lease_s, settings.lock_s, settings.grace_s) == (20.0, 7.0, 5.0)
    assert settings.exit_when_done
    assert not read_settings([*pipeline, "--no-exit-when-done"], environ).exit_when_done


def test_variables_of_kubernetes_services_are_nobodys_settings(pipeline):
    """A Service called 'blockyard' gives every pod BLOCKYARD_PORT=tcp://...; that is not a port."""
    assert read_settings(pipeline, {"BLOCKYARD_PORT": "tcp://10.0.0.1:8470"}).port == 8470


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--prot", "1"], "unknown setting '--prot'; did you mean '--port'"),
        (["--port", "x"], "--port is 'x', which is not a whole number"),
        (["--port", "70000"], "--port is 70000; it must be at most 65535"),
        (["--lease-s", "nan"], "--lease-s is nan; it must be at least 0.1"),
        (["--lease-s", "3"], "--heartbeat-s is 2 and --lease-s 3"),
        (["--log-format", "jsn"], "did you mean 'json'"),
        (["extra"], "unexpected argument 'extra'"),
        (["--host", "0.0.0.0"], "--host is '0.0.0.0', which others can reach, and there is no token"),
        (["--http-host", "0.0.0.0"], "--http-host is '0.0.0.0'"),
        (["--token-file", "/nowhere/token"], "--token-file is '/nowhere/token', which cannot be read"),
        (["--redis-url", ""], "no Redis is given"),
        (["--pipeline", ""], "--pipeline"),
        (["--run-spec", "x.json"], "--pipeline"),
        (["--only", "wrok"], "did you mean 'work'"),
        (["--request", "0:20:3"], "'begin:end,begin:end,...'"),
    ],
)
def test_bad_settings_are_a_sentence(pipeline, argv, sentence):
    """What cannot be meant is refused with name, value and what would do."""
    with pytest.raises(SpecError) as caught:
        read_settings([*pipeline, *argv], {})
    assert sentence in str(caught.value)


def test_bad_variables_are_named_as_variables(pipeline):
    """The user learns where the bad value came from."""
    with pytest.raises(SpecError, match="BLOCKYARD_FRESH is 'maybe', which is not one of 1, true"):
        read_settings(pipeline, {"BLOCKYARD_FRESH": "maybe"})


def test_secrets_come_from_files(pipeline, tmp_path):
    """A token in a file is read without its line end; an empty file is no token."""
    token = tmp_path / "token"
    token.write_text("geheim\n")
    assert read_settings([*pipeline, "--token-file", str(token), "--host", "0.0.0.0"], {}).token == "geheim"
    token.write_text("\n")
    with pytest.raises(SpecError, match="which is empty"):
        read_settings([*pipeline, "--token-file", str(token)], {})


def test_a_run_specification_is_checked_like_a_pipeline_file(pipeline, tmp_path):
    """What a local run hands over is read whole, and what it holds is checked."""
    path = tmp_path / "run.json"
    rest = ["--run-spec", str(path), *pipeline[2:]]
    path.write_bytes(msgspec.json.encode(run_of("tiny")))
    assert read_settings(rest, {}).run == run_of("tiny")
    path.write_bytes(msgspec.json.encode(run_of("tiny", task(requires=("nobody",)))))
    with pytest.raises(SpecError, match="nobody"):
        read_settings(rest, {})
    path.write_bytes(b"{")
    with pytest.raises(SpecError, match="no run specification"):
        read_settings(rest, {})
    with pytest.raises(SpecError, match="cannot be read"):
        read_settings(["--run-spec", "/nowhere/run.json", *pipeline[2:]], {})


@pytest.mark.parametrize(
    ("argv", "address"),
    [
        (["--host", "127.0.0.1"], "127.0.0.1:99"),
        (["--host", "::1"], "[::1]:99"),
        (["--advertise", "sched.ns:8470"], "sched.ns:8470"),
    ],
)
def test_the_address_for_workers_is_the_advertised_one(pipeline, argv, address):
    """A standby sends workers to an address at which the leader can be reached."""
    assert read_settings([*pipeline, *argv], {}).address(99) == address


# ----- what a resumed run may change --------------------------------------------------------------------------------

BEGUN = run_of("r", task("a"), task("b", requires=("a",), params={"sigma": 1.0}))


def changed(**fields):
    first, second = BEGUN.pipeline.tasks
    return run_of("r", first, msgspec.structs.replace(second, **fields))


@pytest.mark.parametrize(
    ("new", "sentence"),
    [
        (changed(write_roi=RoiSpec((0,), (2,))), "write_roi of task 'b' was [0:1] and is [0:2]"),
        (changed(total_roi=RoiSpec((0,), (20,))), "total_roi of task 'b' was [0:10] and is [0:20]"),
        (changed(fit="shrink"), "fit of task 'b' was valid and is shrink"),
        (run_of("r", task("a")), "task 'b' is gone"),
        (run_of("r", *BEGUN.pipeline.tasks, task("c")), "task 'c' is new"),
    ],
)
@pytest.mark.parametrize("accept", [False, True])
def test_another_grid_is_another_run(new, sentence, accept):
    """Block ids would mean other blocks: refused, with what changed and what to do, whatever was accepted."""
    with pytest.raises(SpecError) as caught:
        resumed(BEGUN, new, accept_changes=accept)
    assert sentence in str(caught.value)
    assert "--fresh" in str(caught.value)


@pytest.mark.parametrize(
    "fields", [{"params": {"sigma": 2.0}}, {"requires": ()}, {"read_write_conflict": True}], ids=lambda f: next(iter(f))
)
def test_what_finished_blocks_are_worth_must_be_accepted(fields):
    """Changed parameters, requirements or conflict flag need --accept-changes."""
    with pytest.raises(SpecError, match="--accept-changes"):
        resumed(BEGUN, changed(**fields), accept_changes=False)
    assert resumed(BEGUN, changed(**fields), accept_changes=True) == changed(**fields)


def test_how_the_work_is_done_may_change():
    """Function, workers, retries, time limits, checks and pools change without a question."""
    new = changed(function="math:sqrt", num_workers=7, max_retries=9, timeout_s=1.0, check="math:floor", pool="gpu")
    assert resumed(BEGUN, new, accept_changes=False) == new


def test_tasks_keep_the_order_that_the_journal_numbers():
    """A file whose tasks were moved around goes on as the same run."""
    new = RunSpec(msgspec.structs.replace(BEGUN.pipeline, tasks=BEGUN.pipeline.tasks[::-1]))
    assert resumed(BEGUN, new, accept_changes=False) == BEGUN


def test_what_is_wanted_may_change_and_tasks_keep_their_numbers():
    """Bits are those of the full grid. A task that is wanted no more keeps its number, one that is new comes last."""
    only_b = changed(requires=()).pipeline
    first = RunSpec(only_b, (Target("b", (RoiSpec((0,), (3,)),)),))
    whole = resumed(first, RunSpec(only_b), accept_changes=False)
    assert whole.numbered == ("b", "a")
    again = resumed(whole, RunSpec(only_b, (Target("a"),)), accept_changes=False)
    assert again.numbered == ("b", "a")
    assert other_request(whole, again) == "the request was (a whole, b whole) and is (a whole)"
    assert not other_request(again, again)


def test_asking_for_every_task_is_asking_for_nothing_special():
    """Targets that name all tasks whole mean the same as none."""
    new = RunSpec(BEGUN.pipeline, (Target("b"), Target("a")))
    assert resumed(BEGUN, new, accept_changes=False) == new


# ----- text ---------------------------------------------------------------------------------------------------------


def test_the_status_report_has_a_line_for_each_task():
    """Blocks, workers asked for and online, finished (skipped or succeeded), failed, processing, pending, ETA."""
    smooth = TaskStatus(
        id="smooth", pool="cpu", total=1000, pending=10, ready=20, leased=30, done=900, skipped=35, failed=5,
        orphaned=0, num_workers=8, eta_s=95.0, eta_p10_s=80, eta_p90_s=130, rate=0.5,
    )  # fmt: skip
    label = TaskStatus(
        id="label", pool="gpu", total=7, pending=7, ready=0, leased=0, done=0, skipped=0, failed=0, orphaned=0
    )
    workers = [
        WorkerStatus(id=name, pool=pool, slots=2, task=None, connected=on, leases=0, busy=0, heard_s_ago=0, finished=0)
        for name, pool, on in (("a", "cpu", True), ("b", "cpu", False), ("c", "gpu", True))
    ]
    status = RunStatus(
        run="em", state="running", epoch=1, elapsed_s=65.0, eta_s=None, tasks=[smooth, label], workers=workers,
        stale_releases=0, leases_expired=0, leases_granted=0,
    )  # fmt: skip
    head, columns, first, second = status_report(status).splitlines()
    assert head == "em: running, 92.9 % of 1,007 blocks (5 failed), 4 workers online, 1 min 5 s elapsed, ETA unknown"
    titles = "task blocks workers finished skipped succeeded failed processing pending orphaned at this rate ETA range"
    assert [" ".join(line.split()) for line in (columns, first, second)] == [
        titles,
        "smooth 1,000 2 of 8 935 35 900 5 30 30 0 2 min 1 min 35 s 1.3 to 2.2 min",
        "label 7 2 of any 0 0 0 0 0 7 0 unknown unknown",
    ]


def failure(task_id, block, message, *, final=True):
    return FailureStatus(
        task=task_id, block_id=block, index=(block,), attempt=1, final=final, kind="ValueError", message=message
    )


def test_failures_of_one_cause_are_one_group():
    """Messages are the same when only their numbers differ; the group with most failed blocks comes first."""
    found = group_failures(
        [failure("a", 1, "no chunk 0x1f at (3, -4)"), failure("b", 1, "odd"), failure("b", 1, "odd", final=False)]
        + [failure("a", n, f"no chunk 0x{n:x} at ({n}, {n}.5)") for n in range(2, 40)]
    )
    assert (found.attempts, found.failed) == (41, 40)
    assert [(g.task, g.attempts, g.failed, len(g.blocks)) for g in found.groups] == [("a", 39, 39, 20), ("b", 2, 1, 1)]
    assert found.groups[0].message == "no chunk 0x1f at (3, -4)"


def test_kinds_of_failure_can_be_limited():
    """Messages that name their block in letters make a kind each: the most frequent are given, all are counted."""
    failures = [failure("a", n, f"no chunk {chr(97 + n % 26)}") for n in range(27)]
    found = group_failures(failures, shown=0, most_groups=5)
    assert (found.failed, found.n_groups, len(found.groups)) == (27, 26, 5)
    assert found.groups[0].message == "no chunk a"
