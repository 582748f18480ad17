"""The HTTP side: health, metrics, what is asked of the run as JSON, and the page's files.

Who may ask what: `/healthz`, `/readyz` and the page's own files (which hold nothing of the run) are open, `/metrics`
unless it was told to want the token. `/api` needs ``Authorization: Bearer TOKEN`` wherever there is a token, also on
loopback: that is where everybody is who is logged in on the machine. A request that changes something must also come
from where it seems to: a browser that some other page tells to send one either names a foreign Origin or cannot set
the header that we want. On loopback nothing at all is answered to a name that is not this machine's.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Awaitable
from typing import Any, Protocol
from urllib.parse import urlsplit

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as OPENMETRICS
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from tornado.httputil import HTTPServerRequest
from tornado.web import HTTPError, RequestHandler, StaticFileHandler

from blockyard.plan.grid import Grid
from blockyard.spec.errors import BlockyardError, SpecError, StoreError, nearest
from blockyard.spec.model import PipelineSpec
from blockyard.wire.api import Explanation, FailureStatus, RunStatus
from blockyard.wire.failures import group_failures
from blockyard.wire.states import BlockState
from blockyard_scheduler.historian import Historian
from blockyard_scheduler.leadership import Leadership
from blockyard_scheduler.meter import Meter
from blockyard_scheduler.scaling.autoscaler import Autoscaler
from blockyard_scheduler.settings import is_loopback
from blockyard_scheduler.throughput import Throughput
from blockyard_scheduler.turns import TurnLoop

log = logging.getLogger(__name__)

GROUPS_SHOWN = 50
"""Kinds of failure on the page."""
OWN_HEADER = "X-Blockyard"


UNTRIED = {BlockState.PENDING, BlockState.READY, BlockState.OUTSIDE, BlockState.ORPHANED}
"""Of a block that may never have run."""


class Run(Protocol):
    """What the handlers ask of the service."""

    leadership: Leadership
    turns: TurnLoop | None
    scaler: Autoscaler | None
    historian: Historian | None
    meter: Meter
    listeners: int
    """Pages that are open."""

    @property
    def pipeline(self) -> PipelineSpec:
        """The pipeline that runs."""

    @property
    def ready(self) -> bool:
        """Whether this scheduler does its part: it leads and Redis answers, or it stands by."""

    def status(self) -> RunStatus | None:
        """Return the run, or None while this scheduler does not lead."""

    def throughput(self) -> Throughput:
        """Return how fast the run went."""

    async def leaders_page(self) -> str:
        """Return the address of the page of the scheduler that leads; "" while that is not known."""

    def explain(self, task: str, block_id: int) -> Explanation:
        """Say why a block is in the state it is in."""

    async def failures(self, task: str | None = None) -> list[FailureStatus]:
        """Return the failed attempts that are kept."""

    async def failures_of(self, task: str, block_id: int) -> list[FailureStatus]:
        """Return the failed attempts of one block."""


class DeniedError(BlockyardError):
    """A request that may not be answered; `status` is the HTTP status."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Guard:
    """Who may ask."""

    def __init__(self, token: str, host: str) -> None:
        """`host` is the address the HTTP server listens on."""
        self._token = token
        self._local = is_loopback(host)

    def check(self, request: HTTPServerRequest) -> None:
        """Let a request about the run pass. Raises DeniedError for one that may not."""
        self.check_host(request)
        changes = request.method not in ("GET", "HEAD")
        if changes:
            _check_origin(request)
        if self._token:
            self.check_token(request)
        elif changes and not _names_itself(request):
            raise DeniedError(403, "a request that changes the run needs the header 'Content-Type: application/json'")

    def check_host(self, request: HTTPServerRequest) -> None:
        """Raise DeniedError on loopback for another site's name that resolves to this machine (DNS rebinding)."""
        if self._local and not is_loopback(_host_of(f"//{request.host}")):
            raise DeniedError(403, "this scheduler answers on loopback only: ask for localhost")

    def check_token(self, request: HTTPServerRequest) -> None:
        """Raise DeniedError where there is a token and the request has another one or none."""
        given = request.headers.get("Authorization", "")
        if self._token and not hmac.compare_digest(given.encode(), f"Bearer {self._token}".encode()):
            raise DeniedError(401, "the token is missing or wrong: send the header 'Authorization: Bearer TOKEN'")


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:  # such as "//["
        return ""


def _names_itself(request: HTTPServerRequest) -> bool:
    """Whether a request has a header that a browser sends across sites only after asking us: we never agree."""
    kind = request.headers.get("Content-Type", "").split(";")[0].strip().lower()
    return OWN_HEADER in request.headers or kind == "application/json"


def _check_origin(request: HTTPServerRequest) -> None:
    origin = request.headers.get("Origin")
    if origin is not None and origin.partition("://")[2].lower() != request.host.lower():
        raise DeniedError(403, f"a page of {origin} may not change this run")


class Handler(RequestHandler):
    """Answers in JSON, errors too: ``{"error": "a sentence"}``."""

    def initialize(self, run: Run, guard: Guard) -> None:
        """Take what all handlers share (called by tornado)."""
        self.run = run
        self.guard = guard

    def prepare(self) -> Awaitable[None] | None:
        """Check what name we are asked by (called by tornado)."""
        self.guard.check_host(self.request)
        return None

    def set_default_headers(self) -> None:
        """Nothing that is asked for is to be kept or guessed at."""
        self.clear_header("Server")
        self.set_header("Cache-Control", "no-store")
        self.set_header("X-Content-Type-Options", "nosniff")

    def give(self, value: Any, status: int = 200) -> None:
        """Answer with a value as JSON."""
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.finish(msgspec.json.encode(value))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer with a sentence (called by tornado); an error of ours has its traceback in the log only."""
        error = kwargs.get("exc_info", (None, None, None))[1]
        if isinstance(error, DeniedError):
            status_code = error.status
            if status_code == 401:
                self.set_header("WWW-Authenticate", "Bearer")
        elif isinstance(error, BlockyardError):
            status_code = 503 if isinstance(error, StoreError) else 400
        if isinstance(error, BlockyardError):
            text = str(error)
        elif isinstance(error, HTTPError):
            text = error.log_message or self._reason
        else:
            text = "the scheduler could not answer; its log says why"
        self.give({"error": text}, status_code)

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Log what is our fault, not what a user asked (called by tornado)."""
        if not isinstance(value, (HTTPError, BlockyardError)):
            super().log_exception(typ, value, tb)


class Healthz(Handler):
    """Whether the loop turns: an answer is the proof. Never asks Redis: a restart would not help."""

    def get(self) -> None:
        """Answer."""
        self.give({"loop": "turns"})


class Readyz(Handler):
    """Whether this scheduler does its part."""

    def get(self) -> None:
        """Answer 200, or 503 while it reads the run or Redis does not answer."""
        leads = self.run.leadership.epoch > 0
        self.give({"ready": self.run.ready, "leads": leads}, 200 if self.run.ready else 503)


class Metrics(Handler):
    """The metrics, in the format that is asked for."""

    def initialize(self, run: Run, guard: Guard, registry: CollectorRegistry, *, is_open: bool) -> None:  # type: ignore[override]
        """Take what to scrape, and whether it `is_open` to who has no token (called by tornado)."""
        super().initialize(run, guard)
        self.registry = registry
        self.is_open = is_open

    def get(self) -> None:
        """Answer."""
        if not self.is_open:
            self.guard.check_token(self.request)
        if "application/openmetrics-text" in self.request.headers.get("Accept", ""):
            self.set_header("Content-Type", OPENMETRICS)
            self.finish(generate_openmetrics(self.registry))  # type: ignore[no-untyped-call]
        else:
            self.set_header("Content-Type", CONTENT_TYPE_LATEST)
            self.finish(generate_latest(self.registry))


class StandsBy(msgspec.Struct, kw_only=True):
    """Why a scheduler does not answer: it does not lead."""

    error: str
    leader: str
    """Where workers reach the scheduler that leads; "" while that is not known."""
    page: str
    """Its page, likewise."""


class Api(Handler):
    """A request about the run; only the leader answers."""

    async def prepare(self) -> None:
        """Check who asks, and whether we can know (called by tornado)."""
        self.guard.check(self.request)
        if self.run.turns is None:
            leader = self.run.leadership.leader
            where = f"; the one at {leader} does" if leader else ""
            sentence = f"this scheduler does not lead the run{where}"
            self.give(StandsBy(error=sentence, leader=leader, page=await self.run.leaders_page()), 503)

    @property
    def turns(self) -> TurnLoop:
        """The loop of the leader."""
        assert self.run.turns is not None
        return self.run.turns

    def task_argument(self, *, needed: bool) -> str | None:
        """Return the task that is asked about. Raises SpecError for one that the run does not have."""
        task = self.get_query_argument("task", None)
        return check_task(self.run.pipeline, task, needed=needed)

    async def record_all(self) -> None:
        """Record what has been done in the last moment."""
        if self.run.historian is not None:
            await self.run.historian.keep()


class Status(Api):
    """The run."""

    def get(self) -> None:
        """Answer with a RunStatus."""
        self.give(self.run.status())


class FailuresHandler(Api):
    """What failed."""

    async def get(self) -> None:
        """Answer with Failures; with ``whole=0`` the most frequent groups only."""
        task = self.task_argument(needed=False)
        failures = await self.run.failures(task)
        whole = self.get_query_argument("whole", "1") != "0"
        shown = {} if whole else {"shown": 0, "most_groups": GROUPS_SHOWN}
        self.give(await asyncio.to_thread(group_failures, failures, **shown))


class Explain(Api):
    """Why a block is in the state it is in."""

    async def get(self) -> None:
        """Answer with an Explanation, and the block's failed attempts."""
        explanation, failures = await self.explained()
        self.give(msgspec.to_builtins(explanation) | {"failures": failures})

    async def explained(self) -> tuple[Explanation, list[FailureStatus]]:
        """Return what is known of the block that is asked about, and its failed attempts, oldest first."""
        task = self.task_argument(needed=True)
        assert task is not None
        block_id = self._block(task)
        await self.record_all()
        return self.run.explain(task, block_id), await self.run.failures_of(task, block_id)

    def _block(self, task: str) -> int:
        grid = Grid.of(next(spec for spec in self.run.pipeline.tasks if spec.id == task))
        block, index = self.get_query_argument("block", ""), self.get_query_argument("index", "")
        try:
            return _block_of_id(grid, block) if block else _block_of_index(grid, index)
        except IndexError as error:
            raise SpecError(f"task '{task}': {error}") from None
        except ValueError:
            given = f"block '{block}'" if block else f"index '{index}'"
            raise SpecError(
                f"{given} is no block of task '{task}': give index=3,4,5 with an integer for each of its {grid.ndim}"
                " axes, or block=123"
            ) from None


def _block_of_id(grid: Grid, text: str) -> int:
    block_id = int(text)
    grid.index_of(block_id)
    return block_id


def _block_of_index(grid: Grid, text: str) -> int:
    return grid.id_of(tuple(int(n) for n in text.strip("()[] ").split(",")))  # zip is strict about the axes


class WorkerLog(Explain):
    """What a block wrote, from the logs of the pods that ran it."""

    async def get(self) -> None:
        """Answer with ``{"block_id": ..., "namespace": ..., "left": ..., "pods": [{"pod": ..., "text": ...}]}``."""
        told, failures = await self.explained()
        workers = [name for name in (told.worker, *(failure.worker for failure in reversed(failures))) if name]
        if told.state in UNTRIED and told.attempt <= 1 and not workers:
            raise SpecError(f"{told.text}; nothing has run it")
        if self.run.scaler is None:
            where = f"where worker {workers[0]} runs" if workers else "where its worker ran"
            raise SpecError(f"{told.text}; its log is {where}, which is not on Kubernetes")
        pool = next(task.pool for task in self.run.pipeline.tasks if task.id == told.task)
        found = await self.run.scaler.logs_of(pool, told.task, told.block_id, workers, told.attempt)
        self.give({"block_id": told.block_id, **msgspec.structs.asdict(found)})


def check_task(pipeline: PipelineSpec, task: str | None, *, needed: bool) -> str | None:
    """Return the task back. Raises SpecError where it is not one of the pipeline, or needed and missing."""
    known = [spec.id for spec in pipeline.tasks]
    if task is None and needed:
        raise SpecError(f"say which task{nearest('', known)}")
    if task is not None and task not in known:
        raise SpecError(f"run '{pipeline.name}' has no task '{task}'{nearest(task, known)}")
    return task


class Page(StaticFileHandler):
    """The page and its files."""

    def initialize(self, guard: Guard, path: str, default_filename: str | None = None) -> None:  # type: ignore[override]
        """Take where they are (called by tornado)."""
        super().initialize(path, default_filename)
        self.guard = guard

    def prepare(self) -> None:
        """Check what name we are asked by (called by tornado)."""
        try:
            self.guard.check_host(self.request)
        except DeniedError as error:
            raise HTTPError(error.status, reason=str(error)) from None

    def set_extra_headers(self, path: str) -> None:  # noqa: ARG002 - tornado gives it
        """Only our own scripts, and nobody frames the page."""
        self.clear_header("Server")
        self.set_header("Content-Security-Policy", "default-src 'self'; frame-ancestors 'none'; base-uri 'none'")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Cache-Control", "no-cache")


class NotFound(Handler):
    """What is not there."""

    def prepare(self) -> None:
        """Say so (called by tornado)."""
        self.guard.check_host(self.request)
        self.give({"error": f"there is no {self.request.path}; the API is under /api/v1/"}, 404)
