"""The demo's block functions: the same as without blocks, in every legal order, and again after a block was killed."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import yaml
import zarr
from oracle import Name, Oracle
from scipy import ndimage

from blockyard.plan.grid import Grid
from blockyard.spec.block import Block
from blockyard.spec.model import PipelineSpec, RunSpec

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "examples" / "demo"))

import demo  # noqa: E402
import inputs  # noqa: E402
import picture  # noqa: E402
import watershed  # noqa: E402

EM_VOLUME = Path(os.environ.get("BLOCKYARD_EM_VOLUME") or ROOT.parent / "shared" / "data" / "vnc-stack1-raw.npz")


def head() -> np.ndarray:
    """A corner of the MNI152 head: brain, and around it so much black that whole blocks hold nothing else."""
    return inputs.load(inputs.head()).data[60:100, 20:64, 20:65]


def sections() -> np.ndarray:
    """A few thick sections: of the EM volume where it is, else of noise."""
    if EM_VOLUME.exists():
        return inputs.load(EM_VOLUME).data[:9, 300:370, 500:560]
    rng = np.random.default_rng(3)
    noise = ndimage.gaussian_filter(rng.random((9, 70, 60)), (0.5, 3, 3))
    return (255 * (noise - noise.min()) / np.ptp(noise)).astype(np.uint8)


def image() -> np.ndarray:
    """A 2-D image of real numbers."""
    return np.random.default_rng(5).normal(size=(61, 70)).astype(np.float64)


def plateaus() -> np.ndarray:
    """Few grey values, so that many neighbours are equal, also across block borders."""
    return np.random.default_rng(7).integers(0, 3, (18, 14, 17)).astype(np.uint16) * 40


VOLUMES: dict[str, tuple[Callable[[], np.ndarray], tuple[int, ...], float, float]] = {
    # volume, block, sigma, peak
    "head": (head, (13, 15, 15), 1.0, 100.0),
    "sections": (sections, (4, 23, 20), 3.0, 85.0),
    "image": (image, (16, 20), 1.0, 70.0),
    "plateaus": (plateaus, (7, 5, 8), 0.3, 60.0),
    "thin blocks": (plateaus, (9, 1, 17), 0.4, 90.0),
}


class Prepared:
    """A demo folder, and a naive runner of its pipeline: one block after another, in this process."""

    def __init__(self, folder: Path, name: str) -> None:
        make, block, sigma, peak = VOLUMES[name]
        np.save(folder / "input.npy", make())
        self.out = folder / "out"
        arguments = ["--input", str(folder / "input.npy"), "--out", str(self.out), "--sigma", str(sigma)]
        arguments += ["--peak", str(peak), "--block", ",".join(map(str, block))]
        demo.prepare(demo.parse(arguments), self.out)
        document = yaml.safe_load((self.out / "pipeline.yaml").read_text())
        self.pipeline = msgspec.convert(document, PipelineSpec)
        self.tasks = {task.id: task for task in self.pipeline.tasks}
        self.grids = {task.id: Grid.of(task) for task in self.pipeline.tasks}
        self.oracle = Oracle(RunSpec(self.pipeline))
        self.built: dict[str, Any] = {}

    def restart(self) -> None:
        """As if no block had run."""
        arrays = zarr.open_group(self.out / "volume.zarr", mode="r+")
        demo.create_arrays(self.out / "again.zarr", arrays["raw"][:], arrays["raw"].chunks)
        shutil.rmtree(self.out / "volume.zarr")
        (self.out / "again.zarr").rename(self.out / "volume.zarr")
        self.built.clear()

    def run(self, name: Name) -> None:
        task, block_id = name
        if task not in self.built:
            function = getattr(watershed, self.tasks[task].function.removeprefix("watershed:"))
            self.built[task] = function(**self.tasks[task].params)
        self.built[task](Block(self.grids[task], task, block_id))

    def run_all(self, seed: int) -> None:
        for name in self.legal_order(seed):
            self.run(name)

    def legal_order(self, seed: int) -> Iterator[Name]:
        """All blocks, each after those it waits for; which of the ready ones is next is random."""
        rng = random.Random(seed)
        left = {name: len(waits) for name, waits in self.oracle.waits_for.items()}
        ready = sorted(name for name, n in left.items() if n == 0)
        while ready:
            name = ready.pop(rng.randrange(len(ready)))
            yield name
            for other in sorted(self.oracle.waited_for_by[name]):
                left[other] -= 1
                if left[other] == 0:
                    ready.append(other)

    def bytes(self) -> dict[str, str]:
        """The hash of every file of the arrays."""
        root = self.out / "volume.zarr"
        files = (path for path in sorted(root.rglob("*")) if path.is_file() and path.suffix != ".partial")
        return {str(f.relative_to(root)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}

    def array(self, name: str) -> np.ndarray:
        return zarr.open_group(self.out / "volume.zarr", mode="r")[name][:]


@pytest.fixture(params=list(VOLUMES))
def prepared(request: pytest.FixtureRequest, tmp_path: Path) -> Prepared:
    return Prepared(tmp_path, request.param)


def test_every_legal_order_gives_what_the_whole_volume_gives(
    prepared: Prepared, capsys: pytest.CaptureFixture[str]
) -> None:
    """Smoothed bit for bit, segments up to renaming, and the same bytes whichever of the ready blocks runs next."""
    prepared.run_all(seed=0)
    fragments = prepared.tasks["fragments"].params
    smoothed = watershed.smooth(prepared.array("raw"), prepared.tasks["smooth"].params["sigma"])
    assert np.array_equal(prepared.array("smoothed"), smoothed)
    whole = watershed.label(smoothed, fragments["floor"], fragments["peak"])
    assert len(np.unique(whole)) > 6, "a test volume with hardly a segment shows nothing"
    assert demo.same_up_to_names(prepared.array("segments"), whole)
    assert demo.check(prepared.out)
    assert capsys.readouterr().out.count(": equal") == 2
    found = prepared.bytes()
    prepared.restart()
    prepared.run_all(seed=1)
    assert prepared.bytes() == found


def test_nothing_that_killed_or_older_runs_left_shows_in_the_result(tmp_path: Path) -> None:
    """All arrays are full of rubbish, and each block runs twice with rubbish in all that it writes in between."""
    prepared = Prepared(tmp_path, "plateaus")
    prepared.run_all(seed=1)
    wanted = prepared.bytes()
    writes = {
        "smooth": ["smoothed"],
        "fragments": ["fragments", "counts", "pairs"],
        "relabel": ["segments"],
        "merge": [],
    }
    arrays = zarr.open_group(prepared.out / "volume.zarr", mode="r+")
    for names in writes.values():
        for name in names:
            arrays[name][:] = 77
    for task, block_id in prepared.legal_order(seed=2):
        prepared.run((task, block_id))
        for name in writes[task]:
            at = (block_id,) if name in ("counts", "pairs") else prepared.grids[task].index_of(block_id)
            at += (0,) * (arrays[name].ndim - len(at))
            arrays[name].blocks[at] = np.full_like(arrays[name].blocks[at], 77)
        prepared.run((task, block_id))
    assert prepared.bytes() == wanted


def test_an_order_that_the_scheduler_must_not_give_is_seen_by_the_check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The conflict flag is needed: with two neighbours in the wrong order the segments are not those of the whole."""
    prepared = Prepared(tmp_path, "sections")
    order = list(prepared.legal_order(seed=0))
    waits = prepared.oracle.waits_for
    late = next(n for n in reversed(order) if n[0] == "fragments" and any(w[0] == "fragments" for w in waits[n]))
    order.remove(late)
    order.insert(next(i for i, name in enumerate(order) if name[0] == "fragments"), late)
    for name in sorted(order, key=lambda name: name[0] != "smooth"):
        prepared.run(name)
    assert not demo.check(prepared.out)
    assert "NOT equal" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["image", "sections"])
def test_a_picture_is_drawn_of_an_image_and_of_a_volume(tmp_path: Path, name: str) -> None:
    """Also while some blocks are missing from the record, and when a killed process left half a line in it."""
    prepared = Prepared(tmp_path, name)
    for block in list(prepared.legal_order(seed=0))[:-3]:
        prepared.run(block)
    (prepared.out / "record" / "1.csv").write_text("relabel,3,1,17")
    assert picture.draw(prepared.out).startswith(b"\x89PNG")


def test_pairs_and_tables_are_used(tmp_path: Path) -> None:
    """Segments that cross several blocks meet again in the table; without it the labels would be wrong."""
    prepared = Prepared(tmp_path, "sections")
    prepared.run_all(seed=0)
    assert np.count_nonzero(prepared.array("pairs")) > 0
    assert not demo.same_up_to_names(prepared.array("fragments"), prepared.array("segments"))


def test_a_peak_at_the_floor_is_labelling_of_a_threshold() -> None:
    """When all of the foreground counts as equal, segments are the connected components that scipy finds."""
    smoothed = watershed.smooth(np.random.default_rng(2).integers(0, 255, (30, 31, 32)), (1.0, 1.0, 1.0))
    threshold = float(np.percentile(smoothed, 90))
    labels = watershed.label(smoothed, threshold, threshold)
    wanted, n = ndimage.label(smoothed > threshold)
    assert n > 10
    assert demo.same_up_to_names(labels, wanted)


@pytest.mark.parametrize("shape", [(40, 44), (9, 12, 11)])
def test_each_voxel_belongs_to_the_peak_it_climbs_to(shape: tuple[int, ...]) -> None:
    """Where no two values are equal, following the steepest rise voxel by voxel ends at the peak of the segment."""
    smoothed = watershed.smooth(np.random.default_rng(4).normal(size=shape), [0.8] * len(shape))
    assert len(np.unique(smoothed)) == smoothed.size
    peaks = np.array([peak_above(smoothed, at) for at in np.ndindex(shape)]).reshape(shape)
    labels = watershed.label(smoothed, -np.inf, None)
    assert demo.same_up_to_names(labels, peaks + 1)


def peak_above(image: np.ndarray, at: tuple[int, ...]) -> int:
    """Climb, by the definition; give the flat index of the peak."""
    while True:
        box = tuple(slice(max(k - 1, 0), k + 2) for k in at)
        best, steepest = at, np.float32(0)
        for near in np.ndindex(image[box].shape):
            there = tuple(s.start + k for s, k in zip(box, near, strict=True))
            apart = np.sqrt(sum((a - b) ** 2 for a, b in zip(at, there, strict=True)))
            if there != at and (image[there] - image[at]) / np.float32(apart) > steepest:
                best, steepest = there, (image[there] - image[at]) / np.float32(apart)
        if best == at:
            return int(np.ravel_multi_index(at, image.shape))
        at = best


def test_two_labellings_are_compared_up_to_names() -> None:
    """The same partition under other names is equal; a merge, a split or another background is not."""
    one = np.array([0, 1, 1, 2, 3])
    assert demo.same_up_to_names(one, np.array([0, 7, 7, 2**60, 1], np.uint64))
    assert not demo.same_up_to_names(one, np.array([0, 1, 1, 2, 2]))
    assert not demo.same_up_to_names(one, np.array([0, 1, 4, 2, 3]))
    assert not demo.same_up_to_names(one, np.array([9, 1, 1, 2, 3]))
    assert not demo.same_up_to_names(one, np.array([0, 1, 1, 2, 0]))
    assert not demo.same_up_to_names(one, one[1:])
