"""Control calls: what goes over HTTP, and a sentence for whatever answers."""

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from blockyard.client import Control
from blockyard.spec.errors import ConnectError
from blockyard.spec.model import RoiSpec


class Answering:
    """An HTTP server that gives one answer to everything and remembers what it was asked."""

    def __init__(self, status, body, **headers):
        self.asked = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self):
                length = int(self.headers.get("Content-Length", 0))
                token = self.headers.get("Authorization", "")
                outer.asked.append((self.command, self.path, token, self.rfile.read(length)))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = answer

            def log_message(self, *_):
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exc):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def test_a_retry_names_the_task_and_the_roi():
    """As JSON, with the token."""
    with Answering(200, b'{"state": "running", "blocks": 3}') as server:
        answer = Control(server.url, "secret").retry("smooth", RoiSpec((0, 5), (10, 20)))
    assert (answer.state, answer.blocks) == ("running", 3)
    ((method, path, token, body),) = server.asked
    assert (method, path, token) == ("POST", "/api/v1/retry", "Bearer secret")
    assert json.loads(body) == {"task": "smooth", "roi": {"offset": [0, 5], "shape": [10, 20]}}


def test_an_index_and_a_task_are_asked_for_in_the_query():
    """Whatever characters the task has."""
    answer = {"task": "a b&c", "block_id": 7, "index": [1, 2], "read_roi": "", "write_roi": "", "state": "done"}
    with Answering(200, json.dumps(answer | {"attempt": 1, "text": "It is done."}).encode()) as server:
        assert Control(server.url).explain("a b&c", (1, 2)).text == "It is done."
    assert server.asked[0][1] == "/api/v1/explain?task=a+b%26c&index=1%2C2"


def test_the_schedulers_own_sentence_is_the_error():
    """It knows best what was wrong."""
    answer = b"{\"error\": \"run 'em' has no task 'smoth'\"}"
    with Answering(400, answer) as server, pytest.raises(ConnectError, match="has no task 'smoth'"):
        Control(server.url).explain("smoth", (0,))


@pytest.mark.parametrize(
    ("status", "body", "sentence"),
    [
        (401, b"", "wants the run's token"),
        (500, b"<html>", "answered with status 500"),
        (200, b"<html>hello</html>", "answers with a web page and not like a scheduler"),
    ],
)
def test_whatever_answers_the_error_is_a_sentence(status, body, sentence):
    """Another server on that port, an old scheduler, a proxy."""
    with Answering(status, body) as server, pytest.raises(ConnectError, match=sentence):
        Control(server.url).status()


def test_nobody_there_is_a_sentence_with_the_address():
    """And with the reason."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(ConnectError, match=f"no scheduler answers at http://{address}: .*refused"):
        Control(address).status()


@pytest.mark.parametrize("no_proxy", [None, "", "*.example", "localhost", "127.0.0.1/8, ::1", " , "])
@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "https_proxy"])
def test_no_proxy_sees_the_token(monkeypatch, variable, no_proxy):
    """Whatever the environment of a cluster's login node says: what is asked goes to the scheduler and nowhere else."""
    monkeypatch.delenv("REQUEST_METHOD", raising=False)
    with Answering(200, b'{"state": "paused"}') as server, Answering(200, b"{}") as proxy:
        monkeypatch.setenv(variable, proxy.url)
        if no_proxy is not None:
            monkeypatch.setenv("no_proxy", no_proxy)
            monkeypatch.setenv("NO_PROXY", no_proxy)
        Control(server.url, "secret").pause()
    assert [asked[:3] for asked in server.asked] == [("POST", "/api/v1/pause", "Bearer secret")]
    assert proxy.asked == []


def test_a_redirect_is_named_and_not_followed():
    """Whoever answers at the address must not send the token on to another host."""
    with Answering(200, b"{}") as other, Answering(302, b"", Location=f"{other.url}/api/v1/status") as server:
        with pytest.raises(ConnectError, match=f"redirects to {other.url};"):
            Control(server.url, "secret").status()
        assert other.asked == []


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host"])
def test_only_http_is_spoken(url):
    """An address is no way to read a file."""
    with pytest.raises(ConnectError, match="is not an http"):
        Control(url).status()
