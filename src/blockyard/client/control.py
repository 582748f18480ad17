"""Control calls to a scheduler over HTTP: what `blockyard status`, `retry`, `pause` and the like are made of."""

from __future__ import annotations

import http.client
import json
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from blockyard.client.tls import complaint, trust
from blockyard.spec.errors import AwayError, ConnectError
from blockyard.spec.model import RoiSpec
from blockyard.wire.api import Explanation, Failures, FailureStatus, Record, RunStatus

TIMEOUT_S = 10.0
AWAY = (502, 503, 504)
"""What an ingress, or a scheduler that does not lead, answers while another one starts."""
LONGEST_ANSWER = 2**28
REDIRECTS = range(300, 400)

T = TypeVar("T")


class Explained(Explanation):
    """Why a block is in the state it is in, with its failed attempts as far as they are kept, oldest first."""

    failures: tuple[FailureStatus, ...] = ()


class Control:
    """The control calls of one scheduler. Each raises ConnectError, a sentence, where it cannot be done."""

    def __init__(self, url: str, token: str = "", timeout_s: float = TIMEOUT_S, *, tls_ca: str = "") -> None:
        """Talk to the scheduler at `url` (``http://host:8471``, ``https://host:8471``, or ``host:8471``).

        `tls_ca` is the file of the certificate authorities to trust for https://; empty: the system's. Raises SpecError
        where it holds none.
        """
        self.url = (url if "://" in url else f"http://{url}").rstrip("/")
        self._token = token
        self._timeout_s = timeout_s
        self._trust = trust(tls=self.url.startswith("https://"), ca=tls_ca)
        self._opener = direct_opener(self._trust.context if self._trust is not None else None)

    def status(self) -> RunStatus:
        """Return the status of the run."""
        return self._get("status", {}, RunStatus)

    def failures(self, task: str | None = None) -> Failures:
        """Return the failed attempts that are kept, of one task or all, grouped by their error."""
        return self._get("failures", {"task": task} if task else {}, Failures)

    def explain(self, task: str, index: Sequence[int]) -> Explained:
        """Say why the block of `task` at `index` is in the state it is in."""
        return self._get("explain", {"task": task, "index": ",".join(map(str, index))}, Explained)

    def record(self) -> Record:
        """Return the record of the run: what each block took, where and when."""
        answer = self._call("GET", "record", None)
        try:
            return msgspec.msgpack.decode(answer, type=Record)
        except msgspec.DecodeError as error:
            raise ConnectError(f"{self.url} gives no record that this version can read: {error}") from error

    def worker_log(self, task: str, index: Sequence[int]) -> dict[str, Any]:
        """Find what a block wrote in the logs of the pods that may have run it.

        Gives ``block_id``, ``namespace``, ``pods`` (each with ``pod``, ``lines`` that were read, the ``text`` about the
        block, whether it was ``cut``, and an ``error``), and how many pods were ``left`` unread.
        """
        return self._get("log", {"task": task, "index": ",".join(map(str, index))}, dict[str, Any])

    def retry(self, task: str | None = None, roi: RoiSpec | None = None) -> dict[str, Any]:
        """Try failed blocks again: of one task or all, in `roi` (what they write) or anywhere."""
        return self._post("retry", {"task": task, "roi": roi})

    def rerun(self, task: str, roi: RoiSpec | None = None) -> dict[str, Any]:
        """Run done blocks of `task` again, in `roi` (what they write) or anywhere, with all that depends on them."""
        return self._post("rerun", {"task": task, "roi": roi})

    def scale(self, pool: str, workers: int | None) -> dict[str, Any]:
        """Ask Kubernetes for so many workers of a pool; None: the scheduler decides again."""
        return self._post("scale", {"pool": pool, "workers": workers})

    def pause(self) -> dict[str, Any]:
        """Lease nothing more until `resume`."""
        return self._post("pause", {})

    def resume(self) -> dict[str, Any]:
        """Lease again."""
        return self._post("resume", {})

    def cancel(self) -> dict[str, Any]:
        """End the run."""
        return self._post("cancel", {})

    # ----- inside -----------------------------------------------------------------------------------------------

    def _get(self, path: str, query: dict[str, str], kind: type[T]) -> T:
        asked = f"?{urllib.parse.urlencode(query)}" if query else ""
        return self._decode(self._call("GET", path + asked, None), kind)

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = self._call("POST", path, msgspec.json.encode(body))
        return self._decode(answer, dict[str, Any]) if answer.strip() else {}

    def _decode(self, answer: bytes, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(answer, type=kind)
        except msgspec.DecodeError as error:
            raise ConnectError(
                f"{self.url} does not answer like a scheduler of this version of blockyard: {error}"
            ) from error

    def _call(self, method: str, path: str, body: bytes | None) -> bytes:
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        try:
            request = urllib.request.Request(f"{self.url}/api/v1/{path}", body, headers, method=method)  # noqa: S310
            if request.type not in ("http", "https"):
                raise ConnectError(f"'{self.url}' is not an http:// or https:// address")
            with self._opener.open(request, timeout=self._timeout_s) as answer:
                return bytes(answer.read(LONGEST_ANSWER))
        except urllib.error.HTTPError as error:
            with error:
                kind = AwayError if error.code in AWAY else ConnectError
                raise kind(self._refusal(error)) from error
        except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
            kind = AwayError if _may_come_back(error) else ConnectError
            raise kind(f"no scheduler answers at {self.url}: {self._reason(error)}") from error

    def _reason(self, error: BaseException) -> str:
        cause = error if isinstance(error, ssl.SSLError) else getattr(error, "reason", error)
        if isinstance(cause, TimeoutError):
            return f"nothing came within {self._timeout_s:g} s"
        if self._trust is not None and isinstance(cause, ssl.SSLError):
            return complaint(cause, self._trust, urllib.parse.urlsplit(self.url).hostname or "")
        if self._trust is None and isinstance(cause, (ConnectionResetError, http.client.HTTPException)):
            return f"{cause or type(cause).__name__}; if it speaks TLS, write https://"
        return getattr(cause, "strerror", None) or str(cause) or type(cause).__name__

    def _refusal(self, error: urllib.error.HTTPError) -> str:
        """Return the scheduler's own sentence, if it sent one."""
        try:
            said = json.loads(error.read(2**16))
            sentence = str(said.get("error") or said.get("message") or "")
        except (ValueError, AttributeError, OSError):
            sentence = ""
        if sentence:
            return sentence
        if error.code in REDIRECTS:
            there = error.headers.get("Location", "nowhere").split("/api/v1/")[0]
            return f"{self.url} redirects to {there}; the token is not sent on: give that address if it is the run's"
        if error.code in (401, 403):
            return f"{self.url} refused the token; give the run's token with --token or --token-file"
        return f"{self.url} answered with status {error.code} ({error.reason})"


def direct_opener(tls: ssl.SSLContext | None = None) -> urllib.request.OpenerDirector:
    """Return what opens http:// and https:// addresses of ours, and goes nowhere but there.

    No proxy, whatever the environment says: ours are on loopback, in the cluster or next door, and what goes to a proxy
    carries the run's token. No redirect either, which would carry it to another host, and no other scheme.
    """
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(context=tls),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


def _may_come_back(error: Exception) -> bool:
    """Whether trying again later can help: not where an address is malformed or TLS does not agree."""
    cause = getattr(error, "reason", error)
    if isinstance(cause, ssl.SSLError):
        return isinstance(cause, ssl.SSLEOFError)
    return isinstance(cause, (OSError, http.client.HTTPException))
