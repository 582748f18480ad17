"""Block-wise pipelines over volumes too large for one machine.

Names are imported when first used: ``import blockyard`` alone costs a millisecond.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from funlib.geometry import Coordinate as Coordinate
    from funlib.geometry import Roi as Roi

    from blockyard.client import Client as Client
    from blockyard.client import Context as Context
    from blockyard.local.distribute import distribute as distribute
    from blockyard.local.distribute import map_blocks as map_blocks
    from blockyard.local.distribute import run_blockwise as run_blockwise
    from blockyard.spec.block import Block as Block
    from blockyard.spec.pipeline import Pipeline as Pipeline
    from blockyard.spec.task import Parameter as Parameter
    from blockyard.spec.task import Task as Task

    __version__: str

_HOMES = {
    "Block": "blockyard.spec.block",
    "Client": "blockyard.client",
    "Context": "blockyard.client",
    "Coordinate": "blockyard.spec.rois",
    "Parameter": "blockyard.spec.task",
    "Pipeline": "blockyard.spec.pipeline",
    "Roi": "blockyard.spec.rois",
    "Task": "blockyard.spec.task",
    "call": "blockyard.processes",
    "distribute": "blockyard.local.distribute",
    "map_blocks": "blockyard.local.distribute",
    "run_blockwise": "blockyard.local.distribute",
}
_MODULES = ("processes", "scheduler")
"""Modules of daisy 0.2 that scripts reach through the package."""

_ELSEWHERE = {
    "Array": "funlib.persistence.Array",
    "open_ds": "funlib.persistence.open_ds",
    "prepare_ds": "funlib.persistence.prepare_ds",
    "Graph": "funlib.persistence.graphs",
    "persistence": "funlib.persistence.graphs",
    "Scheduler": "blockyard.distribute(..., serial=True), or 'blockyard plan' to look at blocks",
    "DependencyGraph": "'blockyard plan', or blockyard.plan.grid.Grid",
    "create_dependency_graph": "'blockyard plan', or blockyard.plan.grid.Grid",
    "expand_roi_to_grid": "Roi.snap_to_grid, or a request, which needs no alignment",
    "expand_write_roi_to_grid": "Roi.snap_to_grid, or a request, which needs no alignment",
}
"""Names of daisy 0.2 that blockyard does not have, and what to use: docs/from-daisy.md."""
_OF_DAISY_1 = {
    "BlockStatus",
    "CLMonitor",
    "SerialServer",
    "Server",
    "TaskState",
    "get_worker_log_basename",
    "logging",
    "set_log_basedir",
}
"""Names of daisy 1.x and 2.0 that have no place here."""

__all__ = [
    "Block",
    "Client",
    "Context",
    "Coordinate",
    "Parameter",
    "Pipeline",
    "Roi",
    "Task",
    "__version__",
    "distribute",
    "map_blocks",
    "run_blockwise",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("blockyard")
    elif name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    elif name in _MODULES:
        value = import_module(f"blockyard.{name}")
    elif name in _ELSEWHERE:
        raise AttributeError(f"module 'blockyard' has no '{name}' as daisy 0.2 had; use {_ELSEWHERE[name]}")
    elif name in _OF_DAISY_1:
        raise AttributeError(
            f"module 'blockyard' has no '{name}' as daisy 1.x has: this is the API of daisy 0.2; docs/from-daisy.md"
            " says what to change in a script"
        )
    else:
        raise AttributeError(f"module 'blockyard' has no attribute '{name}'")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
