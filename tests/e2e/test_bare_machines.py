"""Machines and shells that lack something, or give more than a program expects."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from blockyard.local import redis as embedded
from blockyard.local import run as local_run
from blockyard.local.redis import LEAST_FREE_BYTES, EmbeddedRedis
from blockyard.local.run import LocalRun
from blockyard.spec.errors import ConnectError
from blockyard.spec.model import PipelineSpec, RoiSpec, RunSpec, TaskSpec

ONE = {"total_roi": RoiSpec((0,), (1,)), "read_roi": RoiSpec((0,), (1,)), "write_roi": RoiSpec((0,), (1,))}

PIPELINE = """\
name: bare
tasks:
  - id: work
    {what}
    max_retries: 0
    total_roi: {{offset: [0], shape: [1]}}
    read_roi: {{offset: [0], shape: [1]}}
    write_roi: {{offset: [0], shape: [1]}}
"""

VARIABLES = {
    b"BASH_FUNC_module%%": b"() {  echo loaded\n}",  # `module load` of a cluster
    b"od.d-name": b"1",
    b"two words": b"a=b=c",
    b"BYTES": b"caf\xe9\xff",
    b"LINES_OF": b"one\ntwo",
    b"EMPTY": b"",
    b"LONG": b"x" * 100_000,
}


def run(folder, what, **environment):
    (folder / "p.yaml").write_text(PIPELINE.format(what=what))
    command = [sys.executable, "-m", "blockyard.cli", "run", "p.yaml"]
    return subprocess.run(command, capture_output=True, timeout=100, check=False, cwd=folder, **environment)


def test_blocks_have_the_variables_of_the_shell_whatever_their_names(tmp_path):
    """A shell between would drop those that are no names of its own: functions that bash exports, names with dots."""
    (tmp_path / "says.py").write_text(
        "import os, pathlib\n"
        "def f(block):\n"
        f"    got = {{name: os.environb.get(name) for name in {set(VARIABLES)}}}\n"
        f"    pathlib.Path({str(tmp_path)!r}, 'got').write_text(repr(got))\n"
    )
    result = run(tmp_path, "function: says:f", env=os.environb | VARIABLES)
    assert result.returncode == 0, result.stderr
    assert eval((tmp_path / "got").read_text()) == VARIABLES


def test_a_command_finds_the_programs_beside_our_python(tmp_path):
    """Also where nobody has activated its environment (cron)."""
    what = f"command: [{Path(sys.executable).name}, -c, 'import numpy']"
    result = run(tmp_path, what, env=os.environ | {"PATH": "/nowhere"})
    assert result.returncode == 0, result.stderr


def test_a_machine_that_does_not_reach_itself_is_told_so_at_once(tmp_path, monkeypatch):
    """A sandbox without a network has no loopback: scheduler and workers would wait for each other for ever."""
    monkeypatch.setattr(local_run, "LOOPBACK", "192.0.2.1")  # an address of nobody (RFC 5737)
    run = RunSpec(PipelineSpec(name="bare", tasks=(TaskSpec(id="t", function="json:dumps", **ONE),)))
    local = LocalRun(run, tmp_path / "run")
    with pytest.raises(ConnectError, match=r"does not reach itself at 192\.0\.2\.1 .*ip link set lo up"), local:
        pass
    assert not (tmp_path / "run").exists()


LOG = """\
12:M 27 Nov 2026 14:34:08.238 * Ready to accept connections unix
12:M 27 Nov 2026 14:34:08.238 # Can't recover from AOF write error when the AOF fsync policy is 'always'. Exiting...
12:M 27 Nov 2026 14:34:08.239 # Valkey is now ready to exit, bye bye...
"""


@pytest.mark.parametrize(
    ("log", "free", "says"),
    [
        (LOG, 1 << 30, "Can't recover from AOF write error when the AOF fsync policy is 'always'. Exiting..."),
        (LOG, LEAST_FREE_BYTES - 1, "the disk of {} is full"),
        ("12:M", 0, "the disk of {} is full"),  # where the log itself found no room
        ("12:M 27 Nov 2026 14:34:08.238 * DB loaded\n", 1 << 30, "12:M 27 Nov 2026 14:34:08.238 * DB loaded"),
        ("", 1 << 30, ""),
        (None, 1 << 30, ""),
    ],
)
def test_a_redis_that_ended_is_told_with_its_reason(tmp_path, monkeypatch, log, free, says):
    """Its goodbye is none, and a log that broke off neither."""
    if log is not None:
        (tmp_path / embedded.LOG).write_text(log)
    monkeypatch.setattr(embedded.shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))
    assert EmbeddedRedis(tmp_path).last_words == says.format(tmp_path)
