"""Prints the block graph of daisy 1.2.3: one JSON list of tasks a line in, one JSON object a line out.

Runs under a Python that has daisy 1.2.3 (`test_oracle_against_daisy.py` starts it, and makes one), so it imports
nothing of ours. A task is ``{"id", "total", "read", "write", "fit", "conflict", "requires"}``, each ROI ``[offset,
shape]``. A block is named by ``[task, write begin]``; daisy's own block ids are not unique for unaligned offsets.
"""

import json
import sys

import daisy


def roi(pair):
    """Give daisy's Roi."""
    return daisy.Roi(pair[0], pair[1])


def tasks_of(specs):
    """Build daisy tasks; `specs` has upstream tasks first."""
    tasks = {}
    for spec in specs:
        tasks[spec["id"]] = daisy.Task(
            spec["id"],
            roi(spec["total"]),
            roi(spec["read"]),
            roi(spec["write"]),
            process_function=lambda block: None,
            read_write_conflict=spec["conflict"],
            fit=spec["fit"],
            upstream_tasks=[tasks[up] for up in spec["requires"]],
        )
    return list(tasks.values())


def plain(coordinate):
    """Give a list of Python integers."""
    return [int(x) for x in coordinate]


def name(block):
    """Name a block by its task and where it writes."""
    return [block.task_id, plain(block.write_roi.begin)]


def upstream_of(graph, block):
    """List the blocks of upstream tasks it waits for; daisy fails where the total write ROI upstream is not met."""
    found = []
    for task_id in graph.upstream_tasks[block.task_id]:
        upstream = graph.task_dependency_graphs[task_id]
        if block.read_roi.intersects(upstream.total_write_roi):
            found += upstream.get_subgraph_blocks(block.read_roi)
    return [name(up) for up in found]


def graph_of(specs):
    """List the blocks of each task with level, ROIs and what they wait for."""
    graph = daisy.DependencyGraph(tasks_of(specs))
    blocks = []
    for task_id in graph.task_ids:
        within = graph.task_dependency_graphs[task_id]
        for level in range(within.num_levels):
            for block in within.level_blocks(level):
                blocks.append(
                    {
                        "name": name(block),
                        "level": level,
                        "read": [plain(block.read_roi.begin), plain(block.read_roi.end)],
                        "write": [plain(block.write_roi.begin), plain(block.write_roi.end)],
                        "within": [name(up) for up in within.upstream(block)],
                        "between": upstream_of(graph, block),
                    }
                )
    return blocks


def order_of(spec):
    """Run one task through daisy's scheduler with one worker: block names in the order in which they are handed out."""
    spec = {**spec, "requires": []}
    scheduler = daisy.Scheduler(tasks_of([spec]))
    order = []
    while (block := scheduler.acquire_block(spec["id"])) is not None:
        order.append(name(block))
        block.status = daisy.BlockStatus.SUCCESS
        scheduler.release_block(block)
    return order


for line in sys.stdin:
    specs = json.loads(line)
    print(json.dumps({"blocks": graph_of(specs), "orders": {s["id"]: order_of(s) for s in specs}}), flush=True)
