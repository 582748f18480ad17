"""examples/chain_with_request.py does what it says: the request's blocks run, and upstream what they read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import zarr
from scipy.ndimage import gaussian_filter, maximum_filter

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "chain_with_request.py"


def test_the_chain_runs_for_the_request_only(tmp_path: Path) -> None:
    """Inside the request the result is that of the whole volume; blocks that nobody needs have not run."""
    ran = subprocess.run([sys.executable, SCRIPT, tmp_path], capture_output=True, text=True, check=False, timeout=100)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    raw, smooth, peaks = (zarr.open_array(tmp_path / name, mode="r")[:] for name in ("raw", "smooth", "peaks"))
    whole = gaussian_filter(raw, 2.0, truncate=4)
    wanted = maximum_filter(whole, 7) == whole
    # The request [12:18, 40:80, 40:55] meets blocks [10:20, 30:90, 30:60]; those read 3 voxels around.
    box = np.s_[10:20, 30:90, 30:60]
    assert np.array_equal(peaks[box], wanted[box])
    assert f"{np.count_nonzero(wanted[12:18, 40:80, 40:55])} peaks" in ran.stdout
    assert not np.delete(peaks, np.s_[10:20], axis=0).any()
    assert np.array_equal(smooth[0:30, 0:120, 0:90], whole[0:30, 0:120, 0:90])
    assert not smooth[30:].any()
    assert not smooth[:, :, 90:].any()
