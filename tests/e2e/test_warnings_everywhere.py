"""What `plan` warns of is said by every way of starting a run, about arrays that parameters name too."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import zarr

from blockyard import Pipeline, Roi, Task, distribute, run_blockwise
from blockyard.arrays.look import arrays_of
from blockyard.arrays.warn import warnings_before
from blockyard.spec.load import load_text
from blockyard.spec.model import RunSpec

SHARDED = {"chunks": (16,), "shards": (64,)}
BLOCKS = (
    "total_roi: {offset: [0], shape: [256]}, read_roi: {offset: [0], shape: [32]},"
    " write_roi: {offset: [0], shape: [32]}"
)


def array(path: Path, shape: tuple[int, ...] = (256,), **more: Any) -> Path:
    zarr.create_array(path, shape=shape, dtype="u1", **more)
    return path


def n5(path: Path) -> Path:
    path.mkdir(parents=True)
    path.joinpath("attributes.json").write_text(
        json.dumps({"dimensions": [256, 3], "blockSize": [64, 1], "dataType": "uint8", "compression": {"type": "raw"}})
    )
    return path


def pipeline(params: str, blocks: str = BLOCKS, more: str = "") -> str:
    return f"name: w\ntasks:\n  - {{id: f, function: 'steps_w:f', params: {params}, {blocks}{more}}}\n"


def texts(folder: Path, params: str, blocks: str = BLOCKS, more: str = "") -> list[str]:
    run = RunSpec(load_text(pipeline(params, blocks, more)))
    return [warning.text for warning in warnings_before(run, folder)]


MAKE = {
    "zarr v2": lambda at: array(at, chunks=(64,), zarr_format=2),
    "zarr v3": lambda at: array(at, chunks=(64,)),
    "zarr v3 with shards": lambda at: array(at, **SHARDED),
    "zarr v3 with channels": lambda at: array(at, (3, 256), chunks=(1, 64)),
    "N5 with channels": n5,
}


@pytest.mark.parametrize("kind", MAKE)
@pytest.mark.parametrize("params", ["{target: out.zarr}", "{out_file: out.zarr}", "{to: {output: ./out.zarr}}"])
def test_blocks_that_share_a_chunk_or_shard_are_warned_of(tmp_path: Path, kind: str, params: str) -> None:
    """With the unit, the numbers and what to change."""
    MAKE[kind](tmp_path / "out.zarr")
    (said,) = texts(tmp_path, params)
    unit = "shard" if "shards" in kind else "chunk"
    assert f"of {unit}s of [64]: up to 2 blocks write into one {unit}" in said
    assert "give it a write_roi of shape [64], or num_workers 1" in said


@pytest.mark.parametrize(
    ("params", "more"),
    [
        ("{source: out.zarr}", ""),
        ("{target: aligned.zarr}", ""),
        ("{target: out.zarr}", ", num_workers: 1"),
        ("{target: gone.zarr}", ""),
        ("{target: 's3://bucket/out.zarr'}", ""),
        ("{target: broken.zarr}", ""),
        ("{source: out.zarr, target: aligned.zarr}", ""),
        ("{in_file: group.zarr, out_dataset: sharded}", ""),
    ],
)
def test_nothing_is_said_of_what_is_read_or_aligned_or_not_known(tmp_path: Path, params: str, more: str) -> None:
    """Nor where one block runs at a time."""
    array(tmp_path / "out.zarr", **SHARDED)
    array(tmp_path / "aligned.zarr", chunks=(16,))
    array(tmp_path / "group.zarr" / "sharded", **SHARDED)
    (tmp_path / "broken.zarr").mkdir()
    (tmp_path / "broken.zarr" / "zarr.json").write_text('{"node_type": "array", "shape": [3')
    zarr.create_group(tmp_path / "group.zarr")
    assert texts(tmp_path, params, more=more) == []


def test_an_array_in_a_volume_and_one_of_no_telling_name_are_found(tmp_path: Path) -> None:
    """A container and a name in it as two parameters; a name that says neither reads nor writes is hedged."""
    zarr.create_group(tmp_path / "v.zarr")
    array(tmp_path / "v.zarr" / "a" / "b", **SHARDED)
    (said,) = texts(tmp_path, "{out_file: v.zarr, out_dataset: a/b, in_dataset: a/b}")
    assert "writes blocks of [32] into 'v.zarr/a/b'" in said
    (said,) = texts(tmp_path, "{volume: v.zarr/a/b}")
    assert "may write (parameter 'volume') blocks" in said


def test_a_shifted_begin_and_ends_are_said(tmp_path: Path) -> None:
    """Blocks of whole chunks that begin inside one; a write ROI beyond the array; a rim that is the context."""
    array(tmp_path / "out.zarr", chunks=(64,))
    shifted = BLOCKS.replace("total_roi: {offset: [0]", "total_roi: {offset: [16]").replace("[32]", "[64]")
    first, second = texts(tmp_path, "{target: out.zarr}", shifted)
    assert "give it a total_roi in which the first block writes from [0] on, or num_workers 1" in first
    assert "writes 16:272 on axis 0, but 'out.zarr' has 0:256 there" in second
    context = shifted.replace("[16]", "[0]").replace(
        "read_roi: {offset: [0], shape: [64]", "read_roi: {offset: [-64], shape: [192]"
    )
    (rim,) = texts(tmp_path, "{target: out.zarr}", context)
    assert "writes 64:192 on axis 0 of 'out.zarr', which has 0:256: the rest is never written" in rim


def test_world_units_are_those_of_the_array(tmp_path: Path) -> None:
    """ROIs in nanometres, as funlib.persistence has them."""
    path = array(tmp_path / "out.zarr", chunks=(64,))
    zarr.open_array(path).attrs.update({"voxel_size": [8], "offset": [0]})
    nm = BLOCKS.replace("[256]", "[2048]").replace("[32]", "[256]")
    (said,) = texts(tmp_path, "{target: out.zarr}", nm)
    assert "of chunks of [512]" in said
    assert texts(tmp_path, "{target: out.zarr}", nm.replace("[256]", "[512]")) == []


@pytest.mark.parametrize(
    "text", ["\\0", "x" * 5000, "/dev/zero", "/dev/null", "..", ".", "", "\\uD800", "~", "file://"]
)
def test_no_text_in_parameters_stops_the_look(tmp_path: Path, text: str) -> None:
    """Whatever a parameter says."""
    run = RunSpec(load_text(pipeline("{}")))
    (task,) = run.pipeline.tasks
    task.params.update({"target": text.encode().decode("unicode_escape"), "n": [text] * 300})
    assert arrays_of(run, tmp_path) == []


# ----- every way of starting ------------------------------------------------------------------------------------------

REMAINDER = "leaves the last 4 of 100 voxels on axis 0 unwritten"
SHARES = "up to 2 blocks write into one shard"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pipeline with both kinds of warning, as a file; the current folder is its own."""
    array(tmp_path / "out.zarr", (100,), chunks=(16,), shards=(64,))
    blocks = BLOCKS.replace("[256]", "[100]")
    (tmp_path / "p.yaml").write_text(pipeline("{target: out.zarr}", blocks))
    (tmp_path / "steps_w.py").write_text("def f(block, target):\n    pass\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"COLUMNS": "300"}
    return subprocess.run(
        [sys.executable, "-m", "blockyard.cli", *arguments], capture_output=True, text=True, check=True, env=environment
    )


@pytest.mark.parametrize("folder", [".", ".."])
def test_the_commands_say_the_warnings_of_plan(here: Path, monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    """`plan`, `run` (once), `run --serial`, from any folder; who looks at the run later sees them in its status."""
    monkeypatch.chdir(folder)
    file = os.path.relpath(here / "p.yaml")
    planned = json.loads(command("plan", file, "--json").stdout)["warnings"]
    assert [REMAINDER in planned[0], SHARES in planned[1]] == [True, True]
    run = command("run", file, "--workers", "2").stderr
    serial = command("run", file, "--serial").stderr
    for said in (run, serial):
        assert [said.count(text) for text in planned] == [1, 1]
    notices = json.loads(command("status", file, "--json").stdout)["notices"]
    assert {notice["text"] for notice in notices if notice["kind"] == "plan_warning"} == set(planned)
    assert planned[0] in (here / ".blockyard" / "w" / "logs" / "scheduler.log").read_text()


class Half(Task):
    def prepare(self) -> None:
        whole, block = Roi((0,), (100,)), Roi((0,), (32,))
        self.schedule(whole, block, block, nothing, params={"target": "out.zarr"}, num_workers=2)


def nothing(block: object, target: str = "") -> None:
    pass


@pytest.mark.parametrize("serial", [False, True])
def test_python_says_them_to_its_logger_once(here: Path, caplog: pytest.LogCaptureFixture, serial: bool) -> None:
    """As warnings of the logger `blockyard`, which a script and a notebook show without any set-up."""
    for start, kinds in (
        (lambda: distribute([Half()], serial=serial), [REMAINDER, SHARES]),
        (lambda: distribute(Pipeline.from_tasks([Half()]), serial=serial), [REMAINDER, SHARES]),
        (
            lambda: run_blockwise(Roi((0,), (100,)), Roi((0,), (32,)), Roi((0,), (32,)), nothing, serial=serial),
            [REMAINDER],
        ),
    ):
        caplog.clear()
        assert start()
        said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        assert [sum(kind in text for text in said) for kind in kinds] == [1] * len(kinds)
