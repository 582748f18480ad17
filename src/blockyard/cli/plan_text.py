"""The plan of a run as text."""

from __future__ import annotations

from itertools import pairwise

from blockyard.plan.summary import RunPlan


def plan_text(plan: RunPlan) -> str:
    """Return the plan as a table, with its warnings."""
    rows = [("task", "pool", "grid", "blocks", "levels", "at once", "writes", "reads")]
    rows += [
        (
            task.id,
            task.pool,
            " x ".join(f"{n:,}" for n in task.grid),
            f"{task.blocks:,}" + (f" of {task.blocks_in_grid:,}" if task.blocks != task.blocks_in_grid else ""),
            f"{task.levels:,}",
            f"{task.at_once:,}",
            voxels(task.write_voxels),
            voxels(task.read_voxels),
        )
        for task in plan.tasks
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    table = [
        "  ".join(
            cell.ljust(w) if i < 3 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    lines = [f"{plan.name}: {plan.blocks:,} blocks in {len(plan.tasks)} task{'s' if len(plan.tasks) != 1 else ''}"]
    lines += ["", *(line.rstrip() for line in table)]
    if plan.makes:
        lines += ["", *(f"will be made: {array}" for array in plan.makes)]
    if plan.warnings:
        lines += ["", *(f"warning: {warning}" for warning in plan.warnings)]
    return "\n".join(lines)


def voxels(count: int) -> str:
    """Write a number of voxels for a person.

    >>> voxels(0), voxels(20_971_520), voxels(3 * 10**15)
    ('0', '21.0 M', '3.0 P')
    """
    sizes = [(1, ""), (10**3, " k"), (10**6, " M"), (10**9, " G"), (10**12, " T"), (10**15, " P"), (10**18, " E")]
    for (size, name), (following, _) in pairwise([*sizes, (10**24, "")]):
        if count < following * 0.99995 or name == " E":
            return f"{count:,}" if size == 1 else f"{count / size:,.1f}{name}"
    raise AssertionError("the last size has no limit")
