"""The oracle agrees with daisy 1.2.3 from PyPI where that is right: symmetric contexts, tasks that have blocks.

daisy lives in its own environment: ``BLOCKYARD_DAISY_PYTHON`` names a Python that has it, else one is made once in
``.cache/daisy-1.2.3`` (needs a package index). Left out on purpose, since there daisy 1.x is wrong and semantics.md
says so: asymmetric contexts, tasks of no block, reads that meet nothing of the upstream task's total write ROI, and the
overhang of an upstream task.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from oracle import Box, Oracle

from blockyard.plan.requests import topological
from blockyard.spec.model import PipelineSpec, RunSpec
from blockyard.testing.strategies import pipelines

VERSION = "1.2.3"
CACHE = Path(__file__).parents[2] / ".cache"


def daisy_python() -> str:
    """A Python with daisy 1.2.3; made where there is none yet."""
    if named := os.environ.get("BLOCKYARD_DAISY_PYTHON"):
        return named
    home = CACHE / f"daisy-{VERSION}"
    python = home / "bin" / "python"
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "daisy.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "complete").exists():
            made = subprocess.run(
                f"{sys.executable} -m venv --clear {home} && {python} -m pip install --quiet daisy=={VERSION}",
                shell=True,
                capture_output=True,
                text=True,
                check=False,
            )
            if made.returncode:
                pytest.fail(
                    f"daisy {VERSION} could not be installed into {home}; give a Python that has it in"
                    f" BLOCKYARD_DAISY_PYTHON, or deselect this test: {made.stderr[-500:]}"
                )
            (home / "complete").touch()
    return str(python)


class Daisy:
    """A daisy process that answers with graphs."""

    def __init__(self) -> None:
        script = Path(__file__).with_name("daisy_graph.py")
        self.process = subprocess.Popen(
            [daisy_python(), "-W", "ignore", str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": ""},
        )

    def graph(self, pipeline: PipelineSpec) -> dict:
        tasks = {task.id: task for task in pipeline.tasks}
        specs = [
            {
                "id": task.id,
                "total": [task.total_roi.offset, task.total_roi.shape],
                "read": [task.read_roi.offset, task.read_roi.shape],
                "write": [task.write_roi.offset, task.write_roi.shape],
                "fit": task.fit,
                "conflict": task.read_write_conflict,
                "requires": task.requires,
            }
            for task in map(tasks.get, topological(pipeline.tasks))
        ]
        self.process.stdin.write(json.dumps(specs) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, f"daisy failed on {specs}"
        return json.loads(answer)

    def close(self) -> None:
        self.process.communicate(timeout=30)


@pytest.fixture(scope="module")
def daisy():
    process = Daisy()
    yield process
    process.close()


def closure(waits: dict) -> dict:
    """Add what those wait for that one waits for; `waits` lists lower levels first."""
    closed: dict = {}
    for name, direct in waits.items():
        closed[name] = set(direct).union(*(closed[other] for other in direct))
    return closed


@settings(suppress_health_check=list(HealthCheck))
@given(pipeline=pipelines(most_tasks=2, plain=True))
def test_blocks_levels_edges_and_order_are_those_of_daisy(daisy: Daisy, pipeline: PipelineSpec):
    """Within a task: same blocks, ROIs, levels and order; between tasks: the same edges."""
    graph = daisy.graph(pipeline)
    oracle = Oracle(RunSpec(pipeline))
    names = {
        (task_id, block.write.begin): (task_id, block_id)
        for task_id, task in oracle.tasks.items()
        for block_id, block in task.blocks.items()
    }
    ours = {names[task, tuple(begin)] for task, begin in (block["name"] for block in graph["blocks"])}
    assert ours == set(oracle.waits_for)

    within = {}
    for theirs in sorted(graph["blocks"], key=lambda block: block["level"]):
        name = named(names, theirs["name"])
        block = oracle.block(name)
        assert block.level == theirs["level"]
        assert block.read == Box(*map(tuple, theirs["read"]))
        assert block.write == Box(*map(tuple, theirs["write"]))
        within[name] = {named(names, up) for up in theirs["within"]}
        direct = {other for other in own(oracle, name) if oracle.block(other).level == block.level - 1}
        assert within[name] == direct, "daisy links the conflicting blocks of the previous level"
        compare_upstream(oracle, name, {named(names, up) for up in theirs["between"]})
    # Its fewer edges make the same blocks ready at every moment: they have the same closure.
    assert closure(within) == closure({name: own(oracle, name) for name in within})
    compare_orders(oracle, names, graph["orders"])


def named(names: dict, theirs: list) -> tuple[str, int]:
    return names[theirs[0], tuple(theirs[1])]


def own(oracle: Oracle, name: tuple[str, int]) -> set[tuple[str, int]]:
    """What a block waits for in its own task."""
    return {other for other in oracle.waits_for[name] if other[0] == name[0]}


def compare_upstream(oracle: Oracle, name: tuple[str, int], theirs: set[tuple[str, int]]) -> None:
    """The edges to each upstream task, where daisy means them."""
    read = oracle.block(name).read
    for upstream in oracle.tasks[name[0]].spec.requires:
        task = oracle.tasks[upstream]
        if task.spec.fit != "overhang" and read.meets(task.total_write):
            expected = {other for other in oracle.waits_for[name] if other[0] == upstream}
            assert {other for other in theirs if other[0] == upstream} == expected


def compare_orders(oracle: Oracle, names: dict, orders: dict) -> None:
    """What daisy's scheduler hands out one by one is an order that the oracle allows, and all of it."""
    for task, order in orders.items():
        done: set[tuple[str, int]] = set()
        for theirs in order:
            name = named(names, theirs)
            assert own(oracle, name) <= done
            done.add(name)
        assert done == {(task, block_id) for block_id in oracle.tasks[task].blocks}
