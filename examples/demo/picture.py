"""The demo's picture: slices of input and results, which process ran which block, and when."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import zarr

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection

Array: TypeAlias = npt.NDArray[Any]

TASKS = {"smooth": "#4c78a8", "fragments": "#f58518", "merge": "#d62728", "relabel": "#54a24b"}
DPI = 100


@dataclass(frozen=True)
class Record:
    """What the blocks noted about themselves, one entry a block; times in seconds since the first one began."""

    task: Array
    block: Array
    process: Array
    """0, 1, 2 ... in the order in which they came."""
    begin_s: Array
    end_s: Array


def draw(out: Path) -> bytes:
    """Return a picture of the finished demo in `out`, as PNG."""
    arrays: Any = zarr.open_group(out / "volume.zarr", mode="r")
    record = read_record(out / "record")
    block = arrays["smoothed"].chunks
    at = middle_slice(arrays["raw"].shape, block)
    figure = plt.figure(figsize=(13.5, 10.4), layout="constrained")
    panels = figure.subplot_mosaic(
        [["raw", "smoothed", "order"], ["fragments", "segments", "process"], ["times"] * 3], height_ratios=[10, 10, 3]
    )
    for name, title in (("raw", "input"), ("smoothed", "smooth: a Gaussian, with halo")):
        panels[name].imshow(arrays[name][at], cmap="gray", interpolation="nearest")
        panels[name].set_title(title)
    grid_lines(panels["smoothed"], arrays["raw"].shape[-2:], block[-2:], "#ffffff40")
    show_labels(panels["fragments"], arrays["fragments"][at], "fragments: labels carried on from block to block")
    grid_lines(panels["fragments"], arrays["raw"].shape[-2:], block[-2:], "#ffffffa0")
    show_labels(panels["segments"], arrays["segments"][at], "merge, relabel: one segmentation, no seams")
    draw_maps(panels, record, at, arrays["raw"].shape, block)
    draw_times(panels["times"], record)
    for name in ("raw", "smoothed", "fragments", "segments", "order", "process"):
        panels[name].set(xticks=[], yticks=[])
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=DPI)
    plt.close(figure)
    return png.getvalue()


def middle_slice(shape: tuple[int, ...], block: tuple[int, ...]) -> tuple[int, ...]:
    """Give the index of the slice to show: in the middle of the middle layer of blocks; nothing for an image."""
    return tuple(min(n // 2 // b * b + b // 2, n - 1) for n, b in zip(shape[:-2], block[:-2], strict=True))


def read_record(folder: Path) -> Record:
    """Read the lines that the blocks wrote; of a block that ran twice the last."""
    last: dict[tuple[str, int], tuple[int, float, float]] = {}
    for file in sorted(folder.glob("*.csv")):
        for line in file.read_text().splitlines():
            fields = line.split(",")
            if len(fields) == 5:  # a process that was killed may leave half a line
                last[fields[0], int(fields[1])] = int(fields[2]), float(fields[3]), float(fields[4])
    entries = sorted((value[1], *name, value[0], value[2]) for name, value in last.items())
    first_s = entries[0][0] if entries else 0.0
    processes = list(dict.fromkeys(process for _, _, _, process, _ in entries))
    return Record(
        np.array([task for _, task, _, _, _ in entries]),
        np.array([block for _, _, block, _, _ in entries]),
        np.array([processes.index(process) for _, _, _, process, _ in entries]),
        np.array([begin for begin, _, _, _, _ in entries]) - first_s,
        np.array([end for _, _, _, _, end in entries]) - first_s,
    )


def show_labels(axes: Axes, labels: Array, title: str) -> None:
    """Show labels in shuffled colours, 0 in black."""
    colours = np.vstack([np.random.default_rng(8).uniform(0.25, 1.0, (4096, 3)), [[0, 0, 0]]])
    scrambled = (labels * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(52)  # neighbours in number, far apart in colour
    axes.imshow(colours[np.where(labels == 0, 4096, scrambled).astype(np.int64)], interpolation="nearest")
    axes.set_title(title)


def grid_lines(axes: Axes, shape: tuple[int, ...], block: tuple[int, ...], colour: str) -> None:
    """Draw the borders of the blocks."""
    for at in range(block[0], shape[0], block[0]):
        axes.axhline(at - 0.5, color=colour, linewidth=0.6)
    for at in range(block[1], shape[1], block[1]):
        axes.axvline(at - 0.5, color=colour, linewidth=0.6)


def draw_maps(
    panels: dict[str, Axes],
    record: Record,
    at: tuple[int, ...],
    shape: tuple[int, ...],
    block: tuple[int, ...],
) -> None:
    """Show when each block of `fragments` in the slice ran, and which process ran it."""
    blocks = tuple(-(-n // b) for n, b in zip(shape, block, strict=True))
    mine = record.task == "fragments"
    when, who = np.full(blocks, np.nan), np.full(blocks, np.nan)
    rank = np.argsort(np.argsort(record.end_s[mine]))
    when.ravel()[record.block[mine]], who.ravel()[record.block[mine]] = rank, record.process[mine]
    layer = tuple(a // b for a, b in zip(at, block[:-2], strict=False))
    frame: Any = {"extent": (-0.5, blocks[-1] * block[-1] - 0.5, blocks[-2] * block[-2] - 0.5, -0.5), "aspect": "equal"}
    panels["order"].imshow(when[layer], cmap="viridis", **frame)
    panels["order"].set_title("fragments: order of the blocks")
    panels["process"].imshow(who[layer] % 8, cmap="Dark2", vmin=-0.5, vmax=7.5, **frame)
    panels["process"].set_title("fragments: worker process")
    for name in ("order", "process"):
        panels[name].set(xlim=(-0.5, shape[-1] - 0.5), ylim=(shape[-2] - 0.5, -0.5))
        grid_lines(panels[name], shape[-2:], block[-2:], "#ffffffa0")
    for index in np.ndindex(*blocks[-2:]):
        y, x = ((i + 0.5) * b for i, b in zip(index, block[-2:], strict=True))
        number = when[(*layer, *index)]
        if np.isfinite(number) and max(blocks[-2:]) <= 16:
            panels["order"].text(x, y, f"{number + 1:.0f}", ha="center", va="center", fontsize=7, color="w")


def draw_times(axes: Axes, record: Record) -> None:
    """Show what each process did when: a bar a block, in the colour of its task."""
    for task, colour in TASKS.items():
        mine = record.task == task
        bars = [
            [(b, p - 0.4), (e, p - 0.4), (e, p + 0.4), (b, p + 0.4)]
            for b, e, p in zip(record.begin_s[mine], record.end_s[mine], record.process[mine], strict=True)
        ]
        axes.add_collection(PolyCollection(bars, facecolors=colour, edgecolors="none", label=task))
    processes = int(record.process.max(initial=0)) + 1
    axes.set(
        xlim=(0, record.end_s.max(initial=1.0)), ylim=(processes - 0.5, -0.5), xlabel="seconds", yticks=range(processes)
    )
    axes.set_ylabel("process")
    axes.legend(ncols=len(TASKS), loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False, columnspacing=1.5)
