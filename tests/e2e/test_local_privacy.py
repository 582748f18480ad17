"""A run on a machine with other users: what it leaves on disk and answers on loopback is its owner's alone."""

import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from stat import S_IMODE

import pytest

from blockyard.local.run import LocalRun
from blockyard.spec.model import PipelineSpec, RoiSpec, RunSpec, TaskSpec

OTHERS = 0o077


@pytest.fixture
def open_umask():
    """The most careless one there is."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture
def run():
    task = TaskSpec(
        id="work",
        function="json:dumps",
        total_roi=RoiSpec((0,), (4,)),
        read_roi=RoiSpec((0,), (1,)),
        write_roi=RoiSpec((0,), (1,)),
    )
    return RunSpec(PipelineSpec(name="private", tasks=(task,)))


DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Whatever proxy the environment names."""


def status_of(url, **headers):
    try:
        with DIRECT.open(urllib.request.Request(url, headers=headers)) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


@pytest.mark.usefixtures("open_umask")
def test_nothing_of_a_run_is_reached_by_another_user(tmp_path, run):
    """Whatever their umask: each file lies below a folder that only its owner may enter, Redis' socket too."""
    folder = tmp_path / "deep" / "run"
    with LocalRun(run, folder, keep_serving=True) as local:
        socket = Path(local._redis._socket)
        assert S_IMODE(folder.stat().st_mode) & OTHERS == 0
        assert S_IMODE(socket.parent.stat().st_mode) & OTHERS == 0
        assert [path.name for path in folder.iterdir() if path.is_dir() and S_IMODE(path.stat().st_mode) & OTHERS] == []
        secrets = [folder / "token", folder / "redis" / "redis.conf", folder / "run.json"]
        assert [S_IMODE(path.stat().st_mode) & OTHERS for path in secrets] == [0, 0, 0]


@pytest.mark.usefixtures("open_umask")
def test_a_folder_that_was_there_keeps_its_mode(tmp_path, run):
    """Somebody may share it on purpose; what we put into it is private all the same."""
    with LocalRun(run, tmp_path, keep_serving=True):
        (tmp_path / "shared").mkdir()
        assert S_IMODE((tmp_path / "shared").stat().st_mode) == 0o777
        assert S_IMODE((tmp_path / "redis").stat().st_mode) == 0o700


@pytest.mark.parametrize(("setting", "expected"), [(None, 401), ("0", 200)])
def test_metrics_on_loopback_want_the_token_unless_told_not_to(tmp_path, run, monkeypatch, setting, expected):
    """A Prometheus of one's own is let in by a variable, or reads the token from the run's folder."""
    if setting is not None:
        monkeypatch.setenv("BLOCKYARD_METRICS_TOKEN", setting)
    with LocalRun(run, tmp_path / "run", keep_serving=True) as local:
        token = (tmp_path / "run" / "token").read_text()
        assert status_of(f"{local.http_url}/metrics") == expected
        assert status_of(f"{local.http_url}/metrics", Authorization=f"Bearer {token}") == 200
        assert status_of(f"{local.http_url}/api/v1/status") == 401
        assert status_of(f"{local.http_url}/") == 200
        assert local.page_url == f"{local.http_url}/#token={token}"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_who_may_not_read_a_run_is_told_so(tmp_path, run):
    """The folder of another user's run is a sentence, not a traceback."""
    folder = tmp_path / "run"
    with LocalRun(run, folder) as local:
        local.wait()
    for parent in (folder, *folder.parents):
        if parent == Path("/tmp"):  # above it others may look anyway
            break
        parent.chmod(0o711 if parent != folder else 0o700)
    command = ["setpriv", "--reuid=4242", "--clear-groups", sys.executable, "-m", "blockyard.cli", "status", folder]
    told = subprocess.run(command, check=False, capture_output=True, text=True, cwd="/")
    assert told.returncode == 2
    assert "Permission denied" in told.stderr
    assert len(told.stderr.splitlines()) == 1
