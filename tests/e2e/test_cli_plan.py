"""`blockyard plan`, `values`, help and complaints: what needs no run."""

import json
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

from blockyard.cli.app import COMMANDS, SERVICES, main
from blockyard.plan.grid import Grid
from blockyard.plan.summary import plan_run
from blockyard.spec.load import parse_pipeline
from blockyard.spec.model import RoiSpec, RunSpec, Target


def task(name="a", total=(20,), read=((-1,), (7,)), write=((0,), (5,)), offset=None, **more):
    """A task as it stands in a file; ROIs as (offset, shape)."""
    return {
        "id": name,
        "function": "somewhere:something",
        "total_roi": {"offset": list(offset or (0,) * len(total)), "shape": list(total)},
        "read_roi": {"offset": list(read[0]), "shape": list(read[1])},
        "write_roi": {"offset": list(write[0]), "shape": list(write[1])},
        **more,
    }


def plan(*tasks, targets=None):
    return plan_run(RunSpec(parse_pipeline({"name": "p", "tasks": list(tasks)}), targets))


def warnings(*tasks):
    return plan(*tasks).warnings


def test_blocks_levels_and_the_most_at_once():
    """Stride 5, context 1: every second block on an axis at once, 2 levels an axis."""
    (found,) = plan(task(total=(22, 102), read=((-1, -1), (7, 7)), write=((0, 0), (5, 5)))).tasks
    assert (found.grid, found.blocks, found.levels, found.at_once) == ((4, 20), 80, 4, 20)


def test_no_more_run_at_once_than_the_task_allows():
    """num_workers bounds it."""
    (found,) = plan(task(total=(102,), read_write_conflict=False, num_workers=3)).tasks
    assert (found.levels, found.at_once) == (1, 3)


@pytest.mark.parametrize("fit", ["valid", "overhang", "shrink"])
@pytest.mark.parametrize("total", [(20, 11), (22, 7), (7, 7), (3, 9)])
def test_voxels_are_those_of_the_blocks(fit, total):
    """Added up block by block they come to the same, for each fit."""
    spec = task(total=total, read=((-1, 0), (7, 5)), write=((0, 1), (5, 2)), fit=fit)
    (found,) = plan(spec).tasks
    grid = Grid.of(parse_pipeline({"name": "p", "tasks": [spec]}).tasks[0])
    indices = [grid.index_of(block) for block in range(grid.size)]

    def count(roi):
        return roi.shape[0] * roi.shape[1]

    assert found.write_voxels == sum(count(grid.write_roi(index)) for index in indices)
    assert found.read_voxels == sum(count(grid.read_roi(index)) for index in indices)


def test_a_request_counts_only_what_it_needs():
    """One block, and upstream what it reads; the grid stays the full one."""
    upstream = task("up", total=(22,))
    down = task("down", total=(22,), requires=["up"])
    found = plan(upstream, down, targets=(Target("down", (RoiSpec((1,), (1,)),)),))
    assert [(one.id, one.blocks, one.blocks_in_grid) for one in found.tasks] == [("up", 2, 4), ("down", 1, 4)]


def test_a_remainder_that_no_block_writes_is_told():
    """valid leaves the last 3 of 18 voxels."""
    (warning,) = warnings(task(total=(20,)))
    assert "leaves the last 3 of 18 voxels on axis 0 unwritten" in warning
    assert "fit 'shrink'" in warning
    assert warnings(task(total=(20,), fit="shrink")) == ()


def test_blocks_that_reach_over_the_end_are_told():
    """overhang writes 2 voxels more."""
    (warning,) = warnings(task(total=(20,), fit="overhang"))
    assert "writes 2 voxels beyond its total_roi on axis 0" in warning


def test_a_task_without_blocks_is_told():
    """Total ROI no larger than the context."""
    (warning,) = warnings(task(total=(2,)))
    assert "has no block" in warning


def test_writing_what_an_earlier_task_reads_is_told():
    """Nothing orders that."""
    first = task("first", total=(22,), params={"source": "raw", "target": "smooth"})
    second = task("second", total=(22,), params={"source": "smooth", "target": "raw"}, requires=["first"])
    (warning,) = warnings(first, second)
    assert "task 'second' writes 'raw', which task 'first' before it reads" in warning


def test_reading_neighbours_in_place_without_conflict_is_told():
    """What a block reads would depend on timing."""
    params = {"source": "raw", "target": "raw"}
    (warning,) = warnings(task(total=(22,), params=params, read_write_conflict=False))
    assert "read_write_conflict is false" in warning
    assert warnings(task(total=(22,), params=params)) == ()


def test_a_requirement_that_is_never_met_is_told():
    """The tasks lie in different places."""
    (warning,) = warnings(task("up", total=(22,)), task("down", total=(22,), offset=(100,), requires=["up"]))
    assert "they never meet" in warning


def test_writing_beyond_what_the_upstream_task_wrote_is_told():
    """Its input there is whatever the array holds."""
    (warning,) = warnings(task("up", total=(12,)), task("down", total=(22,), requires=["up"]))
    assert "writes 1:21 on axis 0, but 'up', which it requires, writes only 1:11 there" in warning


def test_a_grid_of_10_to_the_18_is_planned_at_once(tmp_path, capsys):
    """Arithmetic only."""
    spec = {
        "name": "big",
        "tasks": [task(total=(5 * 10**6 + 2,) * 3, read=((-1,) * 3, (7,) * 3), write=((0,) * 3, (5,) * 3))],
    }
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(spec))
    assert main(["plan", str(tmp_path / "p.yaml"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["blocks"] == 10**18
    assert found["tasks"][0]["at_once"] == 10**18 // 8
    assert main(["plan", str(tmp_path / "p.yaml")]) == 0
    assert "1,000,000,000,000,000,000" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.yaml"]


def test_values_for_the_chart_hold_the_pipeline_and_its_pools(tmp_path, capsys):
    """What the command prints is a values file whose pipeline is the one of the file."""
    spec = {"name": "p", "tasks": [task("a"), task("b", pool="gpu")]}
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(spec))
    assert main(["values", str(tmp_path / "p.yaml")]) == 0
    values = yaml.safe_load(capsys.readouterr().out)
    assert parse_pipeline(values["pipeline"]) == parse_pipeline(spec)
    assert list(values["pools"]) == ["default", "gpu"]
    chart = Path(__file__).parents[2] / "helm" / "blockyard"
    schema = json.loads((chart / "values.schema.json").read_text())
    jsonschema.validate({**yaml.safe_load((chart / "values.yaml").read_text()), **values}, schema)


@pytest.mark.parametrize("command", [*COMMANDS])
def test_every_command_explains_itself_with_an_example(command, capsys):
    """--help exits 0 and shows how the command is typed."""
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    assert f"  blockyard {command}" in capsys.readouterr().out


def test_the_overview_names_every_command(capsys):
    """Also when no command is given; that is bad input."""
    assert main(["--help"]) == 0
    overview = capsys.readouterr().out
    assert [command for command in [*COMMANDS, *SERVICES] if command not in overview] == []
    assert main([]) == 2


def test_the_version_is_that_of_the_distribution(capsys):
    """One version for library, scheduler and worker."""
    from importlib.metadata import version

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"blockyard {version('blockyard')}\n"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["plna"], "there is no command 'plna'; did you mean 'plan'?"),
        (["plan"], "the following arguments are required: FILE"),
        (["plan", "p.yaml", "--ony", "a"], "did you mean '--only'?"),
        (["plan", "nowhere.yaml"], "nowhere.yaml"),
        (["status", "nowhere"], "'nowhere' is no folder of a run, no pipeline file, and no address"),
        (["status"], "there is no run here"),
        (["status", "127.0.0.1:1"], "no scheduler answers at http://127.0.0.1:1"),
        (["explain", "a", "1;2"], "it must be integers with commas"),
        (["retry", "127.0.0.1:1", "--roi", "1"], "not of the form"),
        (["worker", "--slots", "none"], "--slots is 'none', which is not a whole number"),
        (["scheduler", "--redis-url", "redis://127.0.0.1:1"], "--pipeline"),
    ],
)
def test_complaints_are_one_sentence_and_exit_status_2(tmp_path, monkeypatch, capfd, words, sentence):
    """On standard error, never a traceback."""
    monkeypatch.chdir(tmp_path)
    try:
        status = main(words)
    except SystemExit as end:  # a service ends its process
        status = end.code
    assert status == 2
    err = capfd.readouterr().err
    assert sentence in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("code", "says"), [("async def f(block): ...", "coroutine"), ("f = lambda b: (yield)", "gener")]
)
@pytest.mark.parametrize("words", [["plan"], ["run"], ["run", "--serial"]])
def test_a_function_that_a_call_does_not_run_is_refused(tmp_path, capfd, monkeypatch, words, code, says):
    """Before anything runs, and without a trace in the folder."""
    monkeypatch.setattr("sys.path", list(sys.path))
    module = f"late_{says}_{len(words)}"
    (tmp_path / f"{module}.py").write_text(code + "\n")
    (tmp_path / "p.yaml").write_text(yaml.safe_dump({"name": "p", "tasks": [task(function=f"{module}:f")]}))
    assert main([words[0], str(tmp_path / "p.yaml"), *words[1:]]) == 2
    err = capfd.readouterr().err
    assert f"task 'a', function: '{module}:f' is a {says}" in err
    assert err.count("\n") == 1
    assert not (tmp_path / ".blockyard").exists()


def test_a_plan_is_made_without_the_workers_modules(tmp_path, capfd):
    """What cannot be imported here is a warning; a name that is not in a module that is there is refused."""
    (tmp_path / "half_there.py").write_text("def f(block): ...\n")
    for function, status in (("half_there:f", 0), ("nowhere_to_be_found:f", 0), ("half_there:g", 2)):
        (tmp_path / "p.yaml").write_text(yaml.safe_dump({"name": "p", "tasks": [task(function=function)]}))
        assert main(["plan", str(tmp_path / "p.yaml")]) == status
        out, err = capfd.readouterr()
        assert ("there is no module 'nowhere_to_be_found'" in out) == function.startswith("nowhere")
        assert ("module 'half_there' has no 'g'" in err) == function.endswith("g")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["half_there.py", "p.yaml"]
