"""The demo end to end: real processes, the same bytes for any number of workers, also when some are killed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "examples" / "demo" / "demo.py"
EM_VOLUME = Path(os.environ.get("BLOCKYARD_EM_VOLUME") or ROOT.parent / "shared" / "data" / "vnc-stack1-raw.npz")
BLOCKS = 3 * 4 * 4 * 4 + 1
LIMIT_S = 250

pytestmark = pytest.mark.timeout(300)  # minutes only where the machine is busy


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thick sections: of the EM volume where it is, else of noise."""
    path = tmp_path_factory.mktemp("input") / "volume.npy"
    if EM_VOLUME.exists():
        with np.load(EM_VOLUME) as arrays:
            data = arrays["raw"][:, 300:460, 400:560]
    else:
        noise = ndimage.gaussian_filter(np.random.default_rng(1).random((20, 160, 160)), (0.5, 3, 3))
        data = (255 * (noise - noise.min()) / np.ptp(noise)).astype(np.uint8)
    np.save(path, data)
    return path


class Demo:
    """The demo as a process of its own."""

    def __init__(self, volume: Path, out: Path, workers: int, *more: str) -> None:
        self.out = out
        out.mkdir(exist_ok=True)
        command = [sys.executable, DEMO, "--input", volume, "--out", out, "--workers", str(workers), "--sigma", "3"]
        # A lost agent's blocks are free when its lease has ended: soon, or the test would wait.
        quick = {"BLOCKYARD_LEASE_S": "3", "BLOCKYARD_GRACE_S": "0.5", "BLOCKYARD_HEARTBEAT_S": "0.3"}
        with (out / "said.txt").open("w") as said:
            self.process = subprocess.Popen(
                [*map(str, command), "--block", "5,40,40", "--no-picture", *more],
                stdout=said,
                stderr=subprocess.STDOUT,
                env=os.environ | quick,
                start_new_session=True,  # a group of its own, as in a terminal
            )

    def said(self) -> str:
        return (self.out / "said.txt").read_text()

    def wait(self) -> int:
        try:
            return self.process.wait(LIMIT_S)
        finally:
            self.process.kill()

    def has_ended(self) -> bool:
        """Look for a moment whether it ends."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(0.03)
        return self.process.returncode is not None

    def finished(self) -> int:
        """Give the number of blocks that have run."""
        return sum(file.read_bytes().count(b"\n") for file in (self.out / "record").glob("*.csv"))

    def processes(self, kind: str) -> list[int]:
        """Give the ids of this demo's processes with `kind` in their command: only of its own descendants."""
        listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True)
        rows = [(int(pid), int(parent), args) for pid, parent, args in map(split_row, listed.stdout.splitlines())]
        ours = {self.process.pid}
        while more := {pid for pid, parent, _ in rows if parent in ours} - ours:
            ours |= more
        return [pid for pid, _, args in rows if pid in ours and f" -m {kind} " in args and "/bin/sh" not in args]

    def hashes(self) -> dict[str, str]:
        """Give the hash of every file of the arrays."""
        root = self.out / "volume.zarr"
        files = (path for path in sorted(root.rglob("*")) if path.is_file() and path.suffix != ".partial")
        return {str(f.relative_to(root)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def split_row(row: str) -> list[str]:
    return [*row.split(maxsplit=2), ""][:3]


@pytest.fixture(scope="module")
def one_worker(volume: Path, tmp_path_factory: pytest.TempPathFactory) -> Demo:
    demo = Demo(volume, tmp_path_factory.mktemp("one") / "out", 1)
    assert demo.wait() == 0, demo.said()
    return demo


def test_the_demo_ends_with_its_check(one_worker: Demo) -> None:
    """The command of the README: all blocks, then equal and equal, exit status 0."""
    assert f"{BLOCKS} of {BLOCKS} blocks" in one_worker.said()
    assert one_worker.said().count(": equal") == 2
    assert one_worker.finished() == BLOCKS, "each block ran once"


def test_more_workers_give_the_same_bytes(volume: Path, one_worker: Demo, tmp_path: Path) -> None:
    """How many worker processes there are never shows in the result."""
    demo = Demo(volume, tmp_path / "out", 4)
    assert demo.wait() == 0, demo.said()
    assert demo.hashes() == one_worker.hashes()


def test_ctrl_c_stops_it_and_resume_goes_on(volume: Path, one_worker: Demo, tmp_path: Path) -> None:
    """What was finished is not run again, and the bytes are the same."""
    demo = Demo(volume, tmp_path / "out", 2)
    while demo.finished() < BLOCKS // 3 and not demo.has_ended():
        pass
    os.killpg(demo.process.pid, signal.SIGINT)
    assert demo.wait() == 130, demo.said()
    assert "--resume" in demo.said()
    finished = demo.finished()
    assert finished < BLOCKS
    again = Demo(volume, tmp_path / "out", 2, "--resume")
    assert again.wait() == 0, again.said()
    assert again.finished() == BLOCKS, f"{finished} blocks were finished before, the rest after"
    assert again.hashes() == one_worker.hashes()


SLOT, AGENT, SCHEDULER = "blockyard_worker.slot", "blockyard_worker", "blockyard_scheduler"


@pytest.mark.parametrize(
    "kinds",
    [[SLOT] * 4 + [AGENT] * 2, [SLOT] * 2 + [AGENT] + [SCHEDULER] * 2],
    ids=["workers", "workers and scheduler"],
)
def test_killed_processes_do_not_show_in_the_result(
    volume: Path, one_worker: Demo, tmp_path: Path, kinds: list[str]
) -> None:
    """Slots, agents and the scheduler are killed with SIGKILL at random points on the way; the bytes are the same."""
    seed = random.randrange(10**6)
    print(f"seed {seed}")  # seen when it fails
    demo = Demo(volume, tmp_path / "out", 2)
    killed = list(kill_on_the_way(demo, random.Random(seed), kinds))
    assert demo.wait() == 0, demo.said()
    assert len(killed) == len(kinds)
    assert demo.hashes() == one_worker.hashes()


def kill_on_the_way(demo: Demo, rng: random.Random, kinds: list[str]) -> Iterator[int]:
    """Kill a process of each kind, in random order, each after a random number of finished blocks; give their ids."""
    for kind, after in zip(
        rng.sample(kinds, len(kinds)), sorted(rng.sample(range(5, BLOCKS - 40), len(kinds))), strict=True
    ):
        while not demo.has_ended():
            if demo.finished() >= after and (found := demo.processes(kind)):
                os.kill(victim := rng.choice(found), signal.SIGKILL)
                yield victim
                break
