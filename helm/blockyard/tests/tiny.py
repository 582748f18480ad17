"""What each block of the pipeline of `helm test` does."""

from __future__ import annotations

from pathlib import Path

import blockyard


def touch(block: blockyard.Block) -> None:
    """Leave one file for each block."""
    Path("/tmp/tiny-out").mkdir(exist_ok=True)  # noqa: S108  # the pod's own emptyDir
    Path(f"/tmp/tiny-out/{block.block_id}").touch()  # noqa: S108
