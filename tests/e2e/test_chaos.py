"""`blockyard chaos` for real: processes are killed and frozen, and every promise is kept."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes to kill in /proc, which only Linux has")
def test_nothing_is_lost_or_doubled_in_chaos():
    """Agents, slots, schedulers and Redis: same bytes as undisturbed, each block counted once, none beside another."""
    command = [
        sys.executable,
        "-m",
        "blockyard.cli",
        "chaos",
        "--seconds",
        "12",
        "--seed",
        "5",
        "--faults",
        "3",
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    verdict = json.loads(done.stdout)
    kinds = {kind.split()[1] for kind in verdict["faults"]}
    assert kinds == {"agent", "slot", "scheduler", "Redis"}
    assert verdict["blocks"] > 500
    assert verdict["executions"] >= verdict["blocks"]


@pytest.mark.parametrize("flag", ["--seconds", "--faults", "--workers", "--schedulers"])
def test_no_chaos_is_refused_with_a_sentence(flag):
    """A count or time that is not more than 0."""
    done = subprocess.run(
        [sys.executable, "-m", "blockyard.cli", "chaos", flag, "0"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert f"{flag} is 0" in done.stderr
    assert "more than 0" in done.stderr
