"""The README's first examples run as they are printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import zarr
from scipy.ndimage import gaussian_filter

README = Path(__file__).parents[2] / "README.md"


def test_ten_lines_run_as_printed(tmp_path: Path) -> None:
    """Both pipelines, after the command that makes the volume; what they write is the filter of the whole."""
    text = README.read_text().partition("## Ten lines")[2].partition("Or all of it in Python")[0]
    cells, shell, code, steps = (body for _, body in re.findall(r"```(\w*)\n(.*?)```", text, re.DOTALL))
    (tmp_path / "cells.yaml").write_text(cells)
    (tmp_path / "steps.py").write_text(code)
    (tmp_path / "steps.yaml").write_text(steps)
    lines = [line.partition("  #")[0] for line in shell.splitlines() if line.startswith(("python", "blockyard"))]
    lines = [line for line in lines if not line.startswith("blockyard report")] + [
        "blockyard run steps.yaml --workers 2"
    ]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for line in lines:
        environment = {**os.environ, "PATH": path}
        ran = subprocess.run(line, shell=True, cwd=tmp_path, env=environment, capture_output=True, check=False)
        assert ran.returncode == 0, (line, ran.stderr)
    expected = gaussian_filter(zarr.open_array(tmp_path / "raw.zarr", mode="r")[...], 1.0)
    for name in ("smooth.zarr", "smooth2.zarr"):
        assert (zarr.open_array(tmp_path / name, mode="r")[...] == expected).all()
