"""A chained, halo-aware pipeline over a real volume: prepare it, run it, draw it, and check it.

    python examples/demo/demo.py                                   the MNI152 head that nilearn ships
    python examples/demo/demo.py --input volume.tif --workers 4    a volume of your own

Exit status 0: equal to the same computation without blocks; 1: not equal, or blocks failed; 2: bad input; 130: Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any, TypeAlias

import inputs
import numpy as np
import numpy.typing as npt
import owned
import watershed
import zarr
from inputs import InputError, Volume

from blockyard.spec.load import load_pipeline

Array: TypeAlias = npt.NDArray[Any]

HERE = Path(__file__).resolve().parent
INTERRUPTED = 130
"""Exit status of `blockyard run` after Ctrl-C."""
BLOCKS = 300
"""About so many blocks a task, when --block does not say."""
LEAST = 4
"""Blocks are not made thinner than this."""
SAMPLE = 128
"""The grey values are judged in the middle of the volume: so many voxels an axis, 16 times as many in 2-D."""


@dataclass(frozen=True)
class Settings:
    """What the pipeline file is filled with."""

    shape: tuple[int, ...]
    block: tuple[int, ...]
    sigma: tuple[float, ...]
    floor: float
    peak: float | None


def main(arguments: Sequence[str] | None = None) -> int:
    """Do all of it; give the exit status."""
    args = parse(arguments)
    out = Path(args.out).resolve()
    try:
        refuse_odd(args)
        if args.resume:
            refuse_to_resume_nothing(out)
        else:
            prepare(args, out)
    except InputError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    status = run(out, args.workers, resume=args.resume)
    if status != 0:
        return status
    equal = args.no_check or check(out)
    if not args.no_picture:
        import picture

        owned.write(out, "demo.png", picture.draw(out))
        print(f"picture: {out / 'demo.png'}")
    return 0 if equal else 1


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    add = parser.add_argument
    add("--input", type=Path, help=f"{inputs.KINDS}; default: the MNI152 T1 head of nilearn")
    add("--array", help="which array of an .npz or a zarr group")
    add("--channel", type=int, metavar="N", help="which channel of an RGB or multi-channel image, from 0")
    add(
        "--voxel-size",
        type=numbers(float),
        metavar="Z,Y,X",
        help="default: that of the file (NIfTI, TIFF of ImageJ or OME, zarr with OME-NGFF or voxel_size, voxel_size in"
        " an .npz), else guessed from the shape",
    )
    add("--workers", type=int, default=2, help="worker processes (default: %(default)s)")
    add("--out", default="demo-output", help="folder of the result (default: %(default)s)")
    add("--block", type=numbers(int), metavar="Z,Y,X", help=f"what a block writes; default: for about {BLOCKS} blocks")
    add("--sigma", type=float, help="of the Gaussian, in the smallest voxels; default: 1.5, for large images 3")
    add(
        "--peak",
        type=float,
        metavar="PERCENT",
        help="what is brighter than this percentage counts as equal, so that"
        " it joins; 100: nothing; default: 85 (100 for the head)",
    )
    add("--resume", action="store_true", help="go on with an interrupted run in --out")
    add("--no-check", action="store_true", help="skip the check, which needs the whole volume in memory")
    add("--no-picture", action="store_true", help="skip demo.png")
    return parser.parse_args(arguments)


def numbers(kind: type) -> Any:
    """Give a parser of numbers with commas between."""

    def parsed(text: str) -> tuple[Any, ...]:
        return tuple(kind(part) for part in text.split(","))

    parsed.__name__ = f"numbers with commas between ({kind.__name__})"
    return parsed


def refuse_odd(args: argparse.Namespace) -> None:
    """Raise InputError for numbers that have no meaning."""
    for flag, value, least, most in (
        ("--workers", args.workers, 1, math.inf),
        ("--sigma", args.sigma, 0.1, math.inf),
        ("--peak", args.peak, 0, 100),
    ):
        if value is not None and not least <= value <= most:
            raise InputError(
                f"{flag} is {value:g}; it must be {f'at least {least}' if most > 100 else f'{least} to {most}'}"
            )


def refuse_to_resume_nothing(out: Path) -> None:
    """Raise InputError where no run was begun."""
    if not (out / "pipeline.yaml").exists():
        raise InputError(f"nothing to resume in '{out}': there is no pipeline.yaml; leave out --resume")


# ----- prepare: the arrays and the pipeline file -------------------------------------------------------------------


def prepare(args: argparse.Namespace, out: Path) -> None:
    """Start over in `out`: the input as zarr, empty arrays for the tasks, the pipeline file and its module."""
    owned.refuse_others(out, args.input)
    volume = inputs.load(args.input or inputs.head(), args.array, args.voxel_size, args.channel)
    settings = choose(
        volume, args.block, args.sigma, args.peak if args.peak is not None else 100.0 if args.input is None else 85.0
    )
    try:
        owned.start_over(out)
        (out / "record").mkdir()
        create_arrays(out / "volume.zarr", volume.data, settings.block)
        owned.write(out, "pipeline.yaml", pipeline(settings, out / "volume.zarr").encode())
        # Beside its pipeline file, where workers look for it.
        owned.write(out, "watershed.py", (HERE / "watershed.py").read_bytes())
    except OSError as error:
        raise InputError(f"cannot write to '{out}': {error.strerror or error}") from error
    blocks = math.prod(grid(settings))
    print(
        f"volume {axes(settings.shape)} {volume.data.dtype}, {blocks} blocks of {axes(settings.block)} in each of"
        f" 3 tasks and 1 that merges; voxel size {axes(volume.voxel_size)} ({volume.known_from}), sigma"
        f" {axes(settings.sigma)}; pipeline: {out / 'pipeline.yaml'}"
    )


def choose(volume: Volume, block: tuple[int, ...] | None, sigma: float | None, peak_percent: float) -> Settings:
    """Choose what the user did not: blocks by the shape and the voxels, grey values by a sample."""
    shape = volume.data.shape
    block = block or block_shape(shape, volume.voxel_size)
    if len(block) != len(shape) or min(block) < 1:
        raise InputError(
            f"--block {axes(block, ',')} does not fit a volume of shape {shape}: one number above 0 an axis"
        )
    block = tuple(min(b, n) for b, n in zip(block, shape, strict=True))
    sigma = sigma or (3.0 if max(shape) >= 512 else 1.5)
    sigmas = tuple(round(sigma * min(volume.voxel_size) / v, 3) for v in volume.voxel_size)
    floor, peak = grey_values(volume.data, sigmas, peak_percent)
    return Settings(shape, block, sigmas, floor, peak)


def block_shape(shape: tuple[int, ...], voxel_size: tuple[float, ...], blocks: int = BLOCKS) -> tuple[int, ...]:
    """Give blocks about as long on each axis in the world, equal in size, for about `blocks` of them.

    >>> block_shape((189, 233, 197), (1.0, 1.0, 1.0)), block_shape((20, 1024, 1024), (8.0, 1.0, 1.0))
    ((32, 30, 33), (10, 86, 86))
    """
    goal = max(math.prod(shape) / blocks, LEAST ** len(shape))
    low, high = 0.0, max(n * v for n, v in zip(shape, voxel_size, strict=True))
    for _ in range(60):
        edge = (low + high) / 2
        sides = [min(n, max(LEAST, edge / v)) for n, v in zip(shape, voxel_size, strict=True)]
        low, high = (edge, high) if math.prod(sides) < goal else (low, edge)
    return tuple(math.ceil(n / max(round(n / side), 1)) for n, side in zip(shape, sides, strict=True))


def grey_values(data: Array, sigma: Sequence[float], peak_percent: float) -> tuple[float, float | None]:
    """Give the value below which is background, and the one above which all counts as one (None: no such)."""
    size = SAMPLE if data.ndim == 3 else SAMPLE * 16
    middle = tuple(slice(max(n // 2 - size // 2, 0), n // 2 + size // 2 + 1) for n in data.shape)
    sample = watershed.smooth(data[middle], sigma)
    bright = sample[sample > sample.min() + 0.1 * (sample.max() - sample.min())]
    if bright.size == 0:
        return float(sample.max()), None
    floor, peak = np.percentile(bright, [5, peak_percent])
    return round(float(floor), 3), round(float(peak), 3) if peak_percent < 100 else None


def create_arrays(path: Path, raw: Array, block: tuple[int, ...]) -> None:
    """Create the zarr group: the input, and what the tasks write, each chunk what one block writes."""
    group = zarr.create_group(path)
    group.create_array("raw", data=np.ascontiguousarray(raw), chunks=block)
    for name, kind in (("smoothed", "float32"), ("fragments", "uint64"), ("segments", "uint64")):
        group.create_array(name, shape=raw.shape, chunks=block, dtype=kind)
    blocks = math.prod(math.ceil(n / b) for n, b in zip(raw.shape, block, strict=True))
    # A block can find no more pairs than there are voxels around it.
    most = math.prod(b + 2 for b in block) - math.prod(block)
    group.create_array("counts", shape=(blocks,), chunks=(1,), dtype="uint64")
    group.create_array("pairs", shape=(blocks, most, 2), chunks=(1, most, 2), dtype="uint64")


def pipeline(settings: Settings, volume: Path) -> str:
    """Fill in the pipeline file."""
    values: dict[str, Any] = {"name": "demo", "volume": str(volume), "floor": settings.floor, "peak": settings.peak}
    values |= {"shape": settings.shape, "block": settings.block, "zeros": (0,) * len(settings.shape)}
    values["sigma"] = settings.sigma
    radius = [watershed.kernel_radius(sigma) for sigma in settings.sigma]
    for task, context in (("smooth", radius), ("fragments", [watershed.CONTEXT] * len(radius))):
        values[f"{task}_begin"] = [-c for c in context]
        values[f"{task}_total"] = [n + 2 * c for n, c in zip(settings.shape, context, strict=True)]
        values[f"{task}_read"] = [b + 2 * c for b, c in zip(settings.block, context, strict=True)]
    template = Template((HERE / "pipeline.template.yaml").read_text())
    return template.substitute({name: as_yaml(value) for name, value in values.items()})


def as_yaml(value: Any) -> str:
    """Write a value on one line."""
    return json.dumps(value)  # JSON is YAML


def grid(settings: Settings) -> tuple[int, ...]:
    """Give the number of blocks on each axis."""
    return tuple(math.ceil(n / b) for n, b in zip(settings.shape, settings.block, strict=True))


def axes(values: Sequence[Any], between: str = " x ") -> str:
    """Write one value an axis."""
    return between.join(f"{value:g}" for value in values)


# ----- run --------------------------------------------------------------------------------------------------------


def run(out: Path, workers: int, *, resume: bool) -> int:
    """Run the pipeline file as a user would, with progress and ETA on the terminal; give its exit status."""
    command = [sys.executable, "-m", "blockyard.cli", "run", str(out / "pipeline.yaml"), "--workers", str(workers)]
    process = subprocess.Popen(command if resume else [*command, "--fresh"])
    # Ctrl-C reaches the command too, which finishes the blocks that are running: wait for that. SIGTERM is passed on.
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    try:
        status = process.wait()
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if status == INTERRUPTED:
        print(f"demo: stopped; go on with --resume --out {out}", file=sys.stderr)
    return status


# ----- check ------------------------------------------------------------------------------------------------------


def check(out: Path) -> bool:
    """Compare with the same computation on the whole volume, without blocks; print what differs."""
    began = time.monotonic()
    tasks = {task.id: task.params for task in load_pipeline(out / "pipeline.yaml").tasks}
    arrays: Any = zarr.open_group(out / "volume.zarr", mode="r")
    smoothed = watershed.smooth(arrays["raw"][:], tasks["smooth"]["sigma"])
    difference = float(np.abs(arrays["smoothed"][:] - smoothed).max())
    labels = watershed.label(smoothed, tasks["fragments"]["floor"], tasks["fragments"]["peak"])
    segments = arrays["segments"][:]
    same_smoothed, same_segments = difference == 0.0, same_up_to_names(segments, labels)
    print("check: the same computation on the whole volume, without blocks")
    print(f"  smoothed: max abs difference {difference:g}: {verdict(same_smoothed)}")
    print(
        f"  segments: {count(segments)} from blocks, {count(labels)} from the whole volume:"
        f" {verdict(same_segments)}{' up to renaming' if same_segments else ''}"
    )
    print(f"  ({time.monotonic() - began:.1f} s)")
    return same_smoothed and same_segments


def verdict(equal: bool) -> str:
    """Give the word that the last lines of the demo are read for."""
    return "equal" if equal else "NOT equal"


def count(labels: Array) -> int:
    """Give the number of different labels but 0."""
    return int(np.count_nonzero(np.bincount(dense(labels).ravel())[1:]))


def same_up_to_names(one: Array, other: Array) -> bool:
    """Tell whether two arrays of labels are the same but for the numbers; 0 is 0 in both."""
    if one.shape != other.shape:
        return False
    one, other = dense(one), dense(other)
    names = np.zeros(one.max(initial=0) + 1, other.dtype)
    names[one] = other
    present = np.bincount(one.ravel()) > 0
    one_to_one = len(np.unique(names[present])) == np.count_nonzero(present)
    return bool(names[0] == 0 and one_to_one and np.array_equal(names[one], other))


def dense(labels: Array) -> Array:
    """Give labels none of which is above the number of voxels, so that tables of them are small; 0 stays 0."""
    if labels.max(initial=0) <= labels.size:
        return labels.astype(np.int64)
    return np.unique(np.concatenate([[0], labels.ravel()]), return_inverse=True)[1][1:].reshape(labels.shape)


if __name__ == "__main__":
    sys.exit(main())
