"""Control calls to a scheduler over HTTP: what `blockyard status`, `retry`, `pause` and the like are made of.

Whatever answers at an address (the scheduler, one of another version, a proxy, nobody) comes out of here as what was
asked for or as one sentence; and of what changes a run, the sentence says whether it may have been done.
"""

from __future__ import annotations

import ssl
import urllib.parse
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from blockyard.client.request import Address, Answer, BrokenAnswer, ask, check_token
from blockyard.client.tls import complaint, trust
from blockyard.spec.errors import AwayError, BlockyardError, ConnectError
from blockyard.spec.model import RoiSpec
from blockyard.wire.api import (
    Changed,
    Explanation,
    Failures,
    FailureStatus,
    PodLogs,
    Record,
    RunStatus,
    Scaled,
    Undone,
)
from blockyard.wire.text import bounded, one_line

TIMEOUT_S = 10.0
AWAY = (502, 503, 504)
"""What an ingress, or a scheduler that does not lead, answers while another one starts."""
LONGEST_SENTENCE = 1000
REDIRECTS = range(300, 400)

T = TypeVar("T")


class Explained(Explanation):
    """Why a block is in the state it is in, with its failed attempts as far as they are kept, oldest first."""

    failures: tuple[FailureStatus, ...] = ()


class Control:
    """The control calls of one scheduler. Each raises ConnectError, a sentence, where it cannot be done."""

    def __init__(self, url: str, token: str = "", timeout_s: float = TIMEOUT_S, *, tls_ca: str = "") -> None:
        """Talk to the scheduler at `url` (``http://host:8471``, ``https://host:8471``, ``host:8471``, or the page's).

        `tls_ca` is the file of the certificate authorities to trust for https://; empty: the system's. Raises SpecError
        where it holds none, ConnectError where `url` is no address.
        """
        self._address = Address.of(url)
        self.url = self._address.url
        self._token = token or self._address.token
        check_token(self._token)
        self._timeout_s = timeout_s
        self._trust = trust(tls=self._address.scheme == "https", ca=tls_ca)

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
        return self._decode(self._call("GET", "record", None), Record, msgspec.msgpack.decode)

    def worker_log(self, task: str, index: Sequence[int]) -> PodLogs:
        """Find what a block wrote in the logs of the pods that may have run it."""
        return self._get("log", {"task": task, "index": ",".join(map(str, index))}, PodLogs)

    def retry(self, task: str | None = None, roi: RoiSpec | None = None) -> Undone:
        """Try failed blocks again: of one task or all, in `roi` (what they write) or anywhere."""
        return self._post("retry", {"task": task, "roi": roi}, Undone)

    def rerun(self, task: str, roi: RoiSpec | None = None) -> Undone:
        """Run done blocks of `task` again, in `roi` (what they write) or anywhere, with all that depends on them."""
        return self._post("rerun", {"task": task, "roi": roi}, Undone)

    def scale(self, pool: str, workers: int | None) -> Scaled:
        """Ask Kubernetes for so many workers of a pool; None: the scheduler decides again."""
        return self._post("scale", {"pool": pool, "workers": workers}, Scaled)

    def pause(self) -> Changed:
        """Lease nothing more until `resume`."""
        return self._post("pause", {}, Changed)

    def resume(self) -> Changed:
        """Lease again."""
        return self._post("resume", {}, Changed)

    def cancel(self) -> Changed:
        """End the run."""
        return self._post("cancel", {}, Changed)

    # ----- inside -----------------------------------------------------------------------------------------------

    def _get(self, path: str, query: dict[str, str], kind: type[T]) -> T:
        asked = f"?{urllib.parse.urlencode(query)}" if query else ""
        return self._decode(self._call("GET", path + asked, None), kind)

    def _post(self, path: str, body: dict[str, Any], kind: type[T]) -> T:
        """Ask for a change. Where an answer does not come, or is none of ours, it may have been done all the same."""
        try:
            return self._decode(self._call("POST", path, msgspec.json.encode(body)), kind)
        except UnsureError as error:
            raise type(error)(
                f"{error}; whether it has done what was asked is not known: see 'blockyard status'"
            ) from error

    def _decode(self, answer: bytes, kind: type[T], decode: Any = msgspec.json.decode) -> T:
        try:
            found: T = decode(answer, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            if answer.lstrip()[:1] == b"<":
                raise UnsureError(
                    f"{self.url} answers with a web page and not like a scheduler: a proxy or another service is there;"
                    " give HOST:PORT of the scheduler's HTTP side"
                ) from error
            raise UnsureError(
                f"{self.url} does not answer like a scheduler of this version of blockyard: {error}"
            ) from error
        return found

    def _call(self, method: str, path: str, body: bytes | None) -> bytes:
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        tls = self._trust.context if self._trust is not None else None
        try:
            answer = ask(self._address, method, f"/api/v1/{path}", headers, body, timeout_s=self._timeout_s, tls=tls)
        except BrokenAnswer as error:
            hint = "; if it speaks TLS, write https://" if error.foreign and self._trust is None else ""
            raise UnsureAwayError(f"no scheduler answers at {self.url}: {error}{hint}") from error
        except OSError as error:
            may_come_back = not isinstance(error, ssl.SSLError) or isinstance(error, ssl.SSLEOFError)
            kind = AwayError if may_come_back else ConnectError
            raise kind(f"no scheduler answers at {self.url}: {self._reason(error)}") from error
        except ValueError as error:  # a host that is no name
            raise ConnectError(f"no scheduler answers at {self.url}: {error}") from error
        if not 200 <= answer.status < 300:
            raise self._refusal(answer, path.partition("?")[0])
        return answer.body

    def _reason(self, error: OSError) -> str:
        if isinstance(error, TimeoutError):
            return f"nothing came within {self._timeout_s:g} s"
        if self._trust is not None and isinstance(error, ssl.SSLError):
            return complaint(error, self._trust, self._address.host)
        return error.strerror or str(error) or type(error).__name__

    def _refusal(self, answer: Answer, path: str) -> BlockyardError:
        """Return the scheduler's own sentence, if it sent one; else what the status means at the command line."""
        url, status = self.url, answer.status
        if status in REDIRECTS:
            there = bounded(one_line(answer.location.partition("/api/v1/")[0]), LONGEST_SENTENCE) or "nowhere"
            return ConnectError(
                f"{url} redirects to {there}; the token is not sent on: give that address if it is the run's"
            )
        if status == 401:
            if not self._token:
                return ConnectError(f"{url} wants the run's token; give it with --token or --token-file")
            return ConnectError(f"{url} refused the token; give the run's token with --token or --token-file")
        if status in (404, 405):
            return ConnectError(f"{url} knows no '{path}': another service is there, or a scheduler of another version")
        sentence = _sentence_in(answer.body)
        if sentence:
            kind = AwayError if status in AWAY else UnsureError if status >= 500 else ConnectError
            return kind(sentence)
        if status == 403:
            return ConnectError(f"{url} refused the token; give the run's token with --token or --token-file")
        said = one_line(answer.reason)[:100]
        told = f"{url} answered with status {status}{f' ({said})' if said else ''}"
        if status in AWAY:
            return UnsureAwayError(f"{told}: the scheduler behind it does not answer")
        return UnsureError(told)


class UnsureError(ConnectError):
    """Something answered that says nothing about what was asked for."""


class UnsureAwayError(UnsureError, AwayError):
    """The same, and it may pass."""


def _sentence_in(body: bytes) -> str:
    """Return what a scheduler says of a request that it does not do; "" where the answer is not one of its."""
    try:
        said = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    sentence = said.get("error") or said.get("message")
    return bounded(one_line(sentence), LONGEST_SENTENCE) if isinstance(sentence, str) else ""
