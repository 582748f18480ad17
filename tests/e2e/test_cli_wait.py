"""`blockyard wait`: an exit status for scripts, when a run has ended."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import ssl
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import msgspec
import pytest
import trustme

from blockyard.cli import main
from blockyard.local.run import LocalRun
from blockyard.spec.model import PipelineSpec, RoiSpec, RunSpec, TaskSpec
from blockyard.wire.api import RunStatus

PIPELINE = """
name: p
tasks:
  - id: t
    command: {command}
    total_roi: {{offset: [0], shape: [4]}}
    read_roi: {{offset: [0], shape: [1]}}
    write_roi: {{offset: [0], shape: [1]}}
    max_retries: 0
"""


def run_of(command, blocks=4):
    total, block = RoiSpec((0,), (blocks,)), RoiSpec((0,), (1,))
    task = TaskSpec(id="t", command=command, total_roi=total, read_roi=block, write_roi=block, max_retries=0)
    return RunSpec(PipelineSpec(name="p", tasks=(task,)))


def until_file(path):
    """A block that ends when there is a file."""
    return ("sh", "-c", f"while [ ! -e {path} ]; do sleep 0.02; done")


@contextlib.contextmanager
def waiting(*arguments):
    """A `blockyard wait` in the background, once it has begun."""
    command = [
        sys.executable,
        "-u",
        "-c",
        "import sys; print('begun'); from blockyard.cli import main; sys.exit(main())",
    ]
    with subprocess.Popen(
        [*command, "wait", *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout.readline() == "begun\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(("command", "status"), [("true", 0), ("false", 1)])
def test_a_run_that_ends_gives_its_status(tmp_path, capfd, command, status):
    """0 when every block is done, 1 when some have failed; of who waits meanwhile, and of who asks afterwards."""
    go, folder = tmp_path / "go", tmp_path / "run"
    work = ("sh", "-c", f"{until_file(go)[2]}; {command}")
    with LocalRun(run_of(work), folder, workers=1) as run, waiting(folder) as wait:
        go.touch()
        assert run.wait(60) is not None
        run.stop()
        assert wait.wait(60) == status
        assert "4 blocks" in wait.stdout.read()
    assert main(["wait", str(folder), "--json"]) == status
    assert msgspec.json.decode(capfd.readouterr().out, type=RunStatus).state == ("failed" if status else "done")


def test_a_cancelled_run_is_1(tmp_path):
    """It has ended, and not well."""
    folder = tmp_path / "run"
    with LocalRun(run_of(("sleep", "60")), folder, workers=1) as run, waiting(folder) as wait:
        assert main(["cancel", str(folder)]) == 0
        assert run.wait(60) is not None
        run.stop()
        assert wait.wait(60) == 1
        assert "cancelled" in wait.stdout.read()


def test_a_scheduler_that_is_killed_meanwhile_is_waited_for(tmp_path):
    """It is started again, and the run goes on to its end."""
    go, folder = tmp_path / "go", tmp_path / "run"
    with LocalRun(run_of(until_file(go)), folder, workers=1) as run, waiting(folder) as wait:
        first = json.loads((folder / "scheduler.json").read_text())["pid"]
        os.kill(first, signal.SIGKILL)
        while run.status() is None or json.loads((folder / "scheduler.json").read_text())["pid"] == first:
            assert run.wait(0.05) is None
        assert wait.poll() is None
        go.touch()
        assert run.wait(60) is not None
        run.stop()
        assert wait.wait(60) == 0


def test_a_run_that_lasts_longer_than_the_time_is_3(tmp_path, capfd):
    """And says how far it is."""
    folder = tmp_path / "run"
    with LocalRun(run_of(("sleep", "60")), folder, workers=1):
        assert main(["wait", str(folder), "--timeout", "0.2"]) == 3
    assert "running" in capfd.readouterr().out


def test_a_run_that_nobody_works_on_is_4_and_says_how_to_go_on(tmp_path, capfd, monkeypatch):
    """One that was stopped, and one that nobody has ever started: waiting would last for ever."""
    monkeypatch.setattr("blockyard.cli.wait_command.START_S", 0.1)
    folder = tmp_path / "run"
    with LocalRun(run_of(("sleep", "60")), folder, workers=1, command="blockyard run p.yaml"):
        pass
    assert main(["wait", str(folder)]) == 4
    assert "has not ended, and nobody works on it; to go on: blockyard run p.yaml" in capfd.readouterr().err
    assert main(["wait", str(folder), "--json"]) == 4
    left = json.loads(capfd.readouterr().out)
    assert (left["state"], left["total"]) == ("stopped", 4)
    (tmp_path / "p.yaml").write_text(PIPELINE.format(command='["true"]'))
    assert main(["wait", str(tmp_path / "p.yaml")]) == 4
    assert "'blockyard run' starts one" in capfd.readouterr().err
    assert main(["wait", str(tmp_path / "no.yaml")]) == 2


def test_a_run_that_starts_a_moment_later_is_waited_for(tmp_path, monkeypatch):
    """As in `blockyard run p.yaml & blockyard wait p.yaml`."""
    file = tmp_path / "p.yaml"
    file.write_text(PIPELINE.format(command='["true"]'))
    with waiting(file) as wait:
        monkeypatch.chdir(tmp_path)
        assert main(["run", "p.yaml"]) == 0
        assert wait.wait(60) == 0


# ----- by address ----------------------------------------------------------------------------------------------------


class Answers:
    """An HTTP server that gives each of some answers once, the last one for ever: a state, a status, or none."""

    def __init__(self, *answers, context=None):
        self.asked = 0
        outer, left = self, list(answers)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.asked += 1
                answer = left.pop(0) if len(left) > 1 else left[0]
                if answer is None:
                    return  # the connection closes
                status, body = (200, status_json(answer)) if isinstance(answer, str) else (answer, b"{}")
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._server.handle_error = lambda *_: None  # a client that does not trust us
        self.address = f"127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def status_json(state):
    counts = dict.fromkeys(("stale_releases", "leases_expired", "leases_granted"), 0)
    status = RunStatus(run="p", state=state, epoch=1, elapsed_s=1.0, eta_s=None, tasks=[], workers=[], **counts)
    return msgspec.json.encode(status)


@pytest.fixture
def quick(monkeypatch):
    """Looks often and has little patience."""
    monkeypatch.setattr("blockyard.cli.wait_command.LOOK_EVERY_S", 0.01)
    monkeypatch.setattr("blockyard.cli.wait_command.START_S", 0.1)


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (["running", "done"], 0),
        (["running", "failed"], 1),
        (["paused", "cancelled"], 1),
        ([503, "running", None, 502, 503, "done"], 0),
    ],
)
@pytest.mark.usefixtures("quick")
def test_a_scheduler_elsewhere_is_waited_for_also_while_it_is_away(answers, expected):
    """Its pod is moved, the ingress has nobody behind it, a standby answers: all that passes."""
    with Answers(*answers) as scheduler:
        assert main(["wait", scheduler.address]) == expected
    assert scheduler.asked == len(answers)


@pytest.mark.usefixtures("quick")
def test_what_will_not_pass_is_a_sentence_at_once(capfd, tmp_path):
    """A token that is refused, also later on; nobody there; TLS that does not agree; what is no scheduler."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)

    def told(server, *more, scheme=""):
        with server:
            status = main(["wait", scheme + server.address, *more])
        return status, capfd.readouterr().err

    for answers in ([401], ["running", 401]):
        status, said = told(Answers(*answers))
        assert (status, "wants the run's token" in said) == (2, True)
    status, said = told(Answers("done"), scheme="https://")
    assert (status, "answers without TLS" in said) == (2, True)
    status, said = told(Answers("done", context=context), scheme="https://")
    assert (status, "--tls-ca" in said) == (2, True)
    assert told(Answers("done", context=context), "--tls-ca", str(tmp_path / "ca.pem"), scheme="https://")[0] == 0
    server = Answers("done")
    server._server.server_close()
    assert main(["wait", server.address]) == 2
    assert "no scheduler answers" in capfd.readouterr().err
    assert main(["wait", "--timeout", "soon", server.address]) == 2
    assert "must be a number of seconds" in capfd.readouterr().err


@pytest.mark.usefixtures("quick")
def test_a_scheduler_that_does_not_come_back_is_4(capfd, monkeypatch):
    """After a long time, which was said when it began."""
    monkeypatch.setattr("blockyard.cli.wait_command.AWAY_S", 0.1)
    with Answers("running", 503) as scheduler:
        assert main(["wait", scheduler.address, "--json"]) == 4
    said = capfd.readouterr()
    assert (json.loads(said.out)["state"], said.err.count("waiting for it")) == ("running", 1)


@pytest.mark.usefixtures("quick")
def test_the_last_status_is_given_as_json(capfd):
    """Also when the time is up."""
    with Answers("running") as scheduler:
        assert main(["wait", scheduler.address, "--timeout", "0.05", "--json"]) == 3
    assert json.loads(capfd.readouterr().out)["state"] == "running"
