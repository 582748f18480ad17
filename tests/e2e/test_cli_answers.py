"""Whatever answers at the address of a scheduler, each command ends soon, with one sentence and the right status."""

import contextlib
import fcntl
import functools
import json
import re
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec
import pytest

from blockyard.cli import main
from blockyard.client import Control

JSON = {"Content-Type": "application/json"}
UNKNOWN = "whether it has done what was asked is not known"

LOOKS = [
    ["status"], ["status", "--json"], ["watch"], ["watch", "--json"], ["wait"], ["wait", "--json"], ["failures"],
    ["failures", "--json"], ["explain", "t", "0"], ["explain", "t", "0", "--json"], ["logs", "t", "0"], ["report"],
]  # fmt: skip
CHANGES = [["retry"], ["rerun", "t"], ["pause"], ["resume"], ["cancel"], ["scale", "default", "3"]]


class Says:
    """A server that gives one answer to everything, however it is asked."""

    def __init__(self, status, body=b"", headers=None):
        class Handler(BaseHTTPRequestHandler):
            def answer(self):
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.send_response(status)
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = answer

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()


class Speaks:
    """A peer that takes connections and does with each what `does` does: nothing that is HTTP."""

    def __init__(self, does):
        self._does, self._held = does, []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self):
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._held.append(connection)
                threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection):
        with contextlib.suppress(OSError):
            self._does(connection)

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        for one in (self._listener, *self._held):
            one.close()


def silent(_connection):
    """Takes the connection, and that is all: a process that is stopped."""


def closes(connection):
    connection.recv(1000)
    connection.close()


def tells(text):
    def does(connection):
        connection.recv(1000)
        connection.sendall(text)
        connection.close()

    return does


def trickles(text):
    """Sends a byte now and then, for ever."""

    def does(connection):
        connection.sendall(text)
        while True:
            connection.sendall(b" ")
            time.sleep(0.02)

    return does


OLD_STATUS = b'{"run": "p", "state": "running", "epoch": 1, "elapsed_s": 1.0}'
NEWER = b'{"error": "not here"}'

ANSWERS = {
    # name: who answers, what is said, and whether a change may have been made
    "a standby": (lambda: Says(503, b'{"error": "it does not lead"}', JSON), "does not lead", False),
    "an ingress without anybody": (lambda: Says(503, b"<html>503</html>"), "with status 503", True),
    "a bad gateway": (lambda: Says(502, b"<html>502</html>"), "with status 502", True),
    "a token that is wanted": (lambda: Says(401, b'{"error": "send the header"}', JSON), "give it with --token", False),
    "a proxy that forbids": (lambda: Says(403, b"<html>no</html>"), "refused the token", False),
    "a refusal": (lambda: Says(400, b'{"error": "run \'p\' has no task \'t\'"}', JSON), "has no task 't'", False),
    "another service": (lambda: Says(404, b"<html>no such page</html>"), "another service is there", False),
    "an older scheduler": (lambda: Says(404, NEWER, JSON), "a scheduler of another version", False),
    "a fault of the scheduler": (lambda: Says(500, b'{"error": "its log says why"}', JSON), "its log says why", True),
    "a fault of another": (lambda: Says(500, b'{"message": {"a": [1]}}', JSON), "with status 500", True),
    "a long fault": (lambda: Says(500, json.dumps({"error": "x\n" * 9999}).encode(), JSON), "characters left", True),
    "a log-in page": (lambda: Says(200, b"<!doctype html><p>log in"), "answers with a web page", True),
    "a redirect": (lambda: Says(302, b"", {"Location": "http://a.b/\x1b[31m"}), r"to http://a.b/\x1b", False),
    "bytes": (lambda: Says(200, b"\xff\xfe\x00\x1b[31m"), "not answer like a scheduler", True),
    "text that is no UTF-8": (lambda: Says(200, b'{"run": "\xff"}'), "not answer like a scheduler", True),
    "nested without end": (lambda: Says(200, b'{"a":' * 99999), "not answer like a scheduler", True),
    "an empty answer": (lambda: Says(200), "not answer like a scheduler", True),
    "no content": (lambda: Says(204), "not answer like a scheduler", True),
    "an object": (lambda: Says(200, b"{}"), "missing required field", True),
    "an unknown status": (lambda: Says(999), "with status 999", True),
    "half an answer": (lambda: Says(200, OLD_STATUS, {"Content-Length": "9999"}), "ended half way", True),
    "no answer": (lambda: Speaks(silent), "nothing came within", True),
    "an end": (lambda: Speaks(closes), "closed the connection", True),
    "another protocol": (lambda: Speaks(tells(b"SSH-2.0-OpenSSH_9.2\r\n")), "is not HTTP", True),
    "a head without end": (lambda: Speaks(trickles(b"HTTP/1.1 200 OK\r\nX: ")), "had not ended after", True),
    "a body without end": (lambda: Speaks(trickles(b"HTTP/1.1 200 OK\r\n\r\n{")), "had not ended after", True),
}  # fmt: skip


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """Seconds become fractions of one; a report goes nowhere else."""
    monkeypatch.setattr("blockyard.client.request.WHOLE_S", 0.15)
    monkeypatch.setattr("blockyard.cli.find.Control", functools.partial(Control, timeout_s=0.1))
    for name in ("watch_commands.PATIENCE_S", "watch_commands.LOOK_EVERY_S", "wait_command.START_S",
                 "wait_command.LOOK_EVERY_S"):  # fmt: skip
        monkeypatch.setattr(f"blockyard.cli.{name}", 0.02)
    monkeypatch.delenv("BLOCKYARD_TOKEN", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", ANSWERS)
def test_whatever_answers_a_command_ends_with_one_sentence(name, capfd, tmp_path):
    """Exit status 2, nothing on standard output, no traceback; and where a change may have been made that is said."""
    answering, sentence, may_be_done = ANSWERS[name]
    with answering() as peer:
        for words in LOOKS + CHANGES:
            assert main([*words, peer.address]) == 2, words
            said = capfd.readouterr()
            assert said.out == "", words
            (last,) = [line for line in said.err.splitlines() if not line.endswith("; waiting for it")]
            assert sentence in last, words
            assert last.startswith("blockyard: "), words
            assert len(last) < 1500
            assert not re.search("[\x00-\x1f]", last)
            assert (UNKNOWN in last) == (may_be_done and words in CHANGES), (words, last)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("there", [True, False])
def test_the_run_of_a_folder_that_somebody_holds_is_not_opened_a_second_time(there, capfd, tmp_path):
    """Its scheduler is stopped or hangs (then it is asked once), or is just being started: one sentence says so."""
    run = tmp_path / "run"
    (run / "redis").mkdir(parents=True)
    (run / "run.json").write_text("{}")
    (run / "token").write_text("secret")
    with Speaks(silent) as peer, (run / "redis" / "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        host, port = peer.address.split(":")
        (run / "scheduler.json").write_text(json.dumps({"http_host": host, "http_port": int(port) if there else 1}))
        for words in (["status", "--json"], ["failures"], ["explain", "t", "0"], ["report"], ["retry"], ["pause"]):
            assert main([*words, str(run)]) == 2
            said = capfd.readouterr()
            assert (said.out, said.err.count("\n")) == ("", 1)
            assert ("nothing came within" if there else "nobody answers for it; try again in a moment") in said.err
        assert main(["wait", str(run), "--timeout", "0.05", "--json"]) == 3
        assert json.loads(capfd.readouterr().out)["state"] == "unknown"


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("words", CHANGES, ids=" ".join)
def test_what_was_done_is_told_only_by_an_answer_that_says_so(words, capfd):
    """An older scheduler, or another service, that answers 200 with something else has not said that it did it."""
    with Says(200, b'{"done": true}', JSON) as peer:
        assert main([*words, peer.address]) == 2
    assert UNKNOWN in capfd.readouterr().err


@pytest.mark.usefixtures("quick")
def test_a_scheduler_that_is_away_for_a_moment_is_waited_for_by_watch(capfd, monkeypatch):
    """That it is waited for is said once; JSON stays JSON."""
    monkeypatch.setattr("blockyard.cli.watch_commands.PATIENCE_S", 60)
    status = msgspec.json.encode(
        {"run": "p", "state": "done", "epoch": 1, "elapsed_s": 1.0, "eta_s": None, "tasks": [], "workers": [],
         "stale_releases": 0, "leases_expired": 0, "leases_granted": 0}
    )  # fmt: skip
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(peer) for peer in (Says(503), Says(503), Says(200, status))]
        asked = iter(Control(peer.address) for peer in peers)
        monkeypatch.setattr("blockyard.cli.find.Control", lambda *_, **__: Turns(asked))
        assert main(["watch", "--json", "elsewhere:1"]) == 0
    said = capfd.readouterr()
    assert [json.loads(line)["state"] for line in said.out.splitlines()] == ["done"]
    assert said.err.count("waiting for it") == 1


class Turns:
    """The control calls of each of several, in turn."""

    def __init__(self, controls):
        self._controls = controls

    def status(self):
        return next(self._controls).status()

    def failures(self):
        raise AssertionError


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("http://me:pw@127.0.0.1:1", "names a user"), (":8471", "names no host"), ("host:port", "is no address"),
        ("host:99999", "is no address"), ("http://[::1", "is no address"), ("ftp://host:1", "is not an http://"),
        ("http://host:1/\u00e4", "is no address"), ("x" * 70 + ".\u00e4:1", "no scheduler answers"),
    ],
)  # fmt: skip
def test_what_is_no_address_is_told_with_its_fault(address, sentence, capfd):
    """And a password in it is not."""
    assert main(["status", address]) == 2
    said = capfd.readouterr().err
    assert sentence in said
    assert "pw" not in said
    assert said.count("\n") == 1


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("token", ["se\ncret", "secret\r", "\u20acsecret", "\x00secret"])
def test_a_token_that_cannot_be_sent_is_not_printed(token, capfd):
    """A sentence without it, and nobody is asked."""
    assert main(["status", "127.0.0.1:1", "--token", token]) == 2
    said = capfd.readouterr().err
    assert "can't be sent" in said
    assert "secret" not in said


def test_the_address_of_the_page_is_one_of_the_scheduler(monkeypatch):
    """As a run prints it, with the token behind '#'."""
    seen = []
    monkeypatch.setattr("blockyard.client.control.ask", lambda *words, **_: seen.append(words) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        Control("http://127.0.0.1:1234/#token=a%2Bb").status()
    ((address, method, path, headers, _),) = seen
    assert (address.url, method, path) == ("http://127.0.0.1:1234", "GET", "/api/v1/status")
    assert headers["Authorization"] == "Bearer a+b"


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("garbage", [b"", b"\xff\xfe", b"null", b'{"run": "\xff"}', b"[" * 9999], ids=range(5))
@pytest.mark.parametrize("file", ["status.json", "failures.json", "run.json", "scheduler.json", "token", "address"])
def test_a_file_of_a_run_that_holds_garbage_is_a_sentence(file, garbage, tmp_path, capfd):
    """A disk that was full, a copy that was cut: no traceback, whatever is asked."""
    run = tmp_path / "run"
    run.mkdir()
    for name, text in (("run.json", "{}"), ("scheduler.json", '{"http_host": "127.0.0.1", "http_port": 1}'),
                       ("token", "x"), ("failures.json", "[]")):  # fmt: skip
        (run / name).write_text(text)
    (run / file).write_bytes(garbage)
    for words in (["status"], ["failures"], ["explain", "t", "0"], ["logs", "t", "0"], ["pause"], ["wait"]):
        assert main([*words, str(run)]) in (2, 4)
        assert capfd.readouterr().err.startswith("blockyard: ")
