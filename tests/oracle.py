"""The block semantics, written down as naively as they can be: explicit blocks, explicit boxes, explicit edges.

Nothing here is fast and nothing is clever. No numpy, no formula where a literal test will do: two boxes meet when they
share a voxel, a block waits for another when the two literally meet, an orphan is found by looking again and again
until nothing changes. The plan and the core are compared against this (docs/correctness.md says how), so it must not
import them, nor take a rule from them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product

from blockyard.spec.model import RoiSpec, RunSpec, TaskSpec

Name = tuple[str, int]
"""A block of a run: its task's id and its block id."""


@dataclass(frozen=True)
class Box:
    """A half-open box of voxels."""

    begin: tuple[int, ...]
    end: tuple[int, ...]

    def meets(self, other: Box) -> bool:
        """Whether the two share a voxel: on every axis both begin before the other ends, and neither is empty."""
        for b, e, ob, oe in zip(self.begin, self.end, other.begin, other.end, strict=True):
            if max(b, ob) >= min(e, oe):
                return False
        return True

    def clipped(self, limit: Box) -> Box:
        """The part of it inside `limit`."""
        begin = tuple(max(b, lb) for b, lb in zip(self.begin, limit.begin, strict=True))
        end = tuple(min(e, le) for e, le in zip(self.end, limit.end, strict=True))
        return Box(begin, end)


@dataclass(frozen=True)
class OracleBlock:
    """One block: its place, its boxes, and the boxes it would have if its fit clipped nothing."""

    index: tuple[int, ...]
    read: Box
    write: Box
    unclipped_read: Box
    unclipped_write: Box
    level: int
    key: int = 0
    """Morton code of its place among all tasks of the run (0 until the run is known)."""

    def conflicts_with(self, other: OracleBlock) -> bool:
        """Whether one's read box meets the other's write box."""
        one = self.unclipped_read.meets(other.unclipped_write)
        return one or other.unclipped_read.meets(self.unclipped_write)


class OracleTask:
    """One task alone: all blocks of its grid, and who of them waits for whom."""

    def __init__(self, spec: TaskSpec) -> None:
        self.spec = spec
        self.below = [w - r for w, r in zip(spec.write_roi.begin, spec.read_roi.begin, strict=True)]
        self.above = [r - w for r, w in zip(spec.read_roi.end, spec.write_roi.end, strict=True)]
        self.stride = list(spec.write_roi.shape)
        self.total = box_of(spec.total_roi)
        self.total_write = Box(
            tuple(t + c for t, c in zip(self.total.begin, self.below, strict=True)),
            tuple(t - c for t, c in zip(self.total.end, self.above, strict=True)),
        )
        self.counts = [self._count(axis) for axis in range(len(self.stride))]
        self.level_of_residue = self._levels()
        indices = product(*(range(n) for n in self.counts))
        self.blocks = {block_id: self._block(index) for block_id, index in enumerate(indices)}
        self.waits_for = {block_id: self._waits(block_id) for block_id in self.blocks}

    def _count(self, axis: int) -> int:
        """How many blocks an axis has: counted one by one while another fits (valid) or begins inside (the rest)."""
        begin, end, stride = self.total_write.begin[axis], self.total_write.end[axis], self.stride[axis]
        n = 0
        if self.spec.fit == "valid":
            while begin + (n + 1) * stride <= end:
                n += 1
        else:
            while begin + n * stride < end:
                n += 1
        return n

    def _levels(self) -> dict[tuple[int, ...], int]:
        """The level of each residue: m = min(1 + ceil(max(cl, cu) / s), n), residues in descending C order."""
        if not self.spec.read_write_conflict:
            return {}
        m = []
        for below, above, stride, n in zip(self.below, self.above, self.stride, self.counts, strict=True):
            reach = 0
            while reach * stride < max(below, above):
                reach += 1
            m.append(min(1 + reach, n))
        residues = sorted(product(*(range(k) for k in m)), reverse=True)
        self.residues = m
        return {residue: level for level, residue in enumerate(residues)}

    def _block(self, index: tuple[int, ...]) -> OracleBlock:
        ndim = range(len(index))
        write_begin = tuple(self.total.begin[k] + self.below[k] + index[k] * self.stride[k] for k in ndim)
        write = Box(write_begin, tuple(write_begin[k] + self.stride[k] for k in ndim))
        read = Box(
            tuple(write.begin[k] - self.below[k] for k in ndim), tuple(write.end[k] + self.above[k] for k in ndim)
        )
        level = 0
        if self.spec.read_write_conflict:
            level = self.level_of_residue[tuple(i % m for i, m in zip(index, self.residues, strict=True))]
        if self.spec.fit == "shrink":
            return OracleBlock(index, read.clipped(self.total), write.clipped(self.total_write), read, write, level)
        return OracleBlock(index, read, write, read, write, level)

    def _waits(self, block_id: int) -> set[int]:
        """The conflicting blocks of a lower level."""
        if not self.spec.read_write_conflict:
            return set()
        block = self.blocks[block_id]
        return {
            other_id
            for other_id, other in self.blocks.items()
            if other.level < block.level and block.conflicts_with(other)
        }


class Oracle:
    """A run, spelled out.

    ``tasks[id].blocks[block_id]`` are the blocks of the whole grids; ``run_blocks[id]`` the ids of those that run;
    ``waits_for[name]`` the blocks of the run that `name` waits for. Tasks that are neither targets nor upstream of one
    are in none of them.
    """

    def __init__(self, run: RunSpec) -> None:
        self.run = run
        specs = {spec.id: spec for spec in run.pipeline.tasks}
        self.order = [spec.id for spec in run.pipeline.tasks if spec.id in self._tasks_of_the_run(specs)]
        self.tasks = {task: OracleTask(specs[task]) for task in self.order}
        self._set_keys()
        self.run_blocks: dict[str, set[int]] = {task: set() for task in self.order}
        self._choose()
        self.waits_for = {name: self._waits(name) for name in self.names()}
        self.waited_for_by: dict[Name, set[Name]] = {name: set() for name in self.waits_for}
        for name, waits in self.waits_for.items():
            for other in waits:
                self.waited_for_by[other].add(name)

    # --- what runs ---------------------------------------------------------------------------------------------

    def _targets(self) -> list[tuple[str, tuple[RoiSpec, ...] | None]]:
        if self.run.targets is None:
            return [(spec.id, None) for spec in self.run.pipeline.tasks]
        return [(target.task, target.request) for target in self.run.targets]

    def _tasks_of_the_run(self, specs: dict[str, TaskSpec]) -> set[str]:
        """The targets and all that they require, directly or not."""
        found = {task for task, _ in self._targets()}
        while more := {up for task in found for up in specs[task].requires} - found:
            found |= more
        return found

    def _choose(self) -> None:
        """A target's requested blocks, and again and again what writes what a chosen block reads."""
        for task, request in self._targets():
            if request is None:
                self._choose_whole(task)
                continue
            for roi in request:
                for block_id, block in self.tasks[task].blocks.items():
                    if block.write.meets(box_of(roi)):
                        self._choose_block(task, block_id)

    def _choose_whole(self, task: str) -> None:
        self.run_blocks[task] = set(self.tasks[task].blocks)
        for upstream in self.tasks[task].spec.requires:
            self._choose_whole(upstream)

    def _choose_block(self, task: str, block_id: int) -> None:
        if block_id in self.run_blocks[task]:
            return  # what it reads was chosen with it
        self.run_blocks[task].add(block_id)
        for upstream, upstream_id in self._written_before(task, block_id):
            self._choose_block(upstream, upstream_id)

    def _written_before(self, task: str, block_id: int) -> set[Name]:
        """Blocks of upstream tasks whose write box meets this block's read box."""
        read = self.tasks[task].blocks[block_id].read
        return {
            (upstream, upstream_id)
            for upstream in self.tasks[task].spec.requires
            for upstream_id, block in self.tasks[upstream].blocks.items()
            if block.write.meets(read)
        }

    # --- who waits for whom ------------------------------------------------------------------------------------

    def names(self) -> list[Name]:
        """All blocks of the run."""
        return [(task, block_id) for task in self.order for block_id in sorted(self.run_blocks[task])]

    def block(self, name: Name) -> OracleBlock:
        """The block of that name."""
        return self.tasks[name[0]].blocks[name[1]]

    def _waits(self, name: Name) -> set[Name]:
        task, block_id = name
        within = {(task, other) for other in self.tasks[task].waits_for[block_id]}
        return {other for other in within | self._written_before(task, block_id) if self.in_run(other)}

    def in_run(self, name: Name) -> bool:
        """Whether the block runs."""
        return name[1] in self.run_blocks[name[0]]

    def conflict(self, one: Name, other: Name) -> bool:
        """Whether the two must never run at the same time."""
        task, other_task = one[0], other[0]
        if one == other:
            return True
        if task != other_task or not self.tasks[task].spec.read_write_conflict:
            return False
        return self.block(one).conflicts_with(self.block(other))

    # --- in which order ----------------------------------------------------------------------------------------

    def _set_keys(self) -> None:
        """Interleave the bits of q = (write begin - o) // g, bit by bit from the lowest, last axis first."""
        if not self.tasks:
            return
        tasks = list(self.tasks.values())
        ndim = range(len(tasks[0].stride))
        origin = [min(task.total_write.begin[k] for task in tasks) for k in ndim]
        grain = [min(task.stride[k] for task in tasks) for k in ndim]
        places = {
            (name, block_id): [(block.write.begin[k] - origin[k]) // grain[k] for k in ndim]
            for name, task in self.tasks.items()
            for block_id, block in task.blocks.items()
        }
        bits = [max((place[k] for place in places.values()), default=0).bit_length() for k in ndim]
        for (name, block_id), place in places.items():
            block = self.tasks[name].blocks[block_id]
            self.tasks[name].blocks[block_id] = OracleBlock(
                block.index,
                block.read,
                block.write,
                block.unclipped_read,
                block.unclipped_write,
                block.level,
                interleaved(place, bits),
            )

    def rank(self, name: Name) -> tuple[int, int, int]:
        """What the ready blocks are sorted by: Morton code, order of tasks, block id."""
        return self.block(name).key, self.order.index(name[0]), name[1]

    def ready(self, done: Iterable[Name], gone: Iterable[Name] = ()) -> list[Name]:
        """Blocks that may run now, the next one first: all they wait for is in `done`.

        `gone` are those that no longer count though they are not done (leased, failed or orphaned).
        """
        done = set(done)
        ended = done | set(gone)
        may = [name for name, waits in self.waits_for.items() if name not in ended and waits <= done]
        return sorted(may, key=self.rank)

    # --- what becomes of them ----------------------------------------------------------------------------------

    def orphans_of(self, failed: Iterable[Name]) -> set[Name]:
        """Blocks that wait for a failed one, directly or through other orphans."""
        failed = set(failed)
        orphans: set[Name] = set()
        while more := {down for name in failed | orphans for down in self.waited_for_by[name]} - orphans:
            orphans |= more
        return orphans - failed

    def ends(self, failing: Iterable[Name]) -> tuple[set[Name], set[Name], set[Name]]:
        """Say which blocks are done, failed and orphaned in the end when those of `failing` fail if they run."""
        failing = set(failing)
        done: set[Name] = set()
        failed: set[Name] = set()
        while more := self.ready(done, failed):
            failed |= failing.intersection(more)
            done |= set(more) - failing
        return done, failed, set(self.waits_for) - done - failed


def box_of(roi: RoiSpec) -> Box:
    """The same box."""
    return Box(roi.begin, roi.end)


def interleaved(place: list[int], bits: list[int]) -> int:
    """Take bit 0 of the last axis, of the one before, ..., then bit 1 of each; an exhausted axis is skipped."""
    key, at = 0, 0
    for bit in range(max(bits, default=0)):
        for axis in reversed(range(len(place))):
            if bit < bits[axis]:
                key += (place[axis] >> bit & 1) << at
                at += 1
    return key
