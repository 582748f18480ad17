"""Which address is answered by what."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from tornado.httpserver import HTTPServer
from tornado.web import Application

from blockyard.core.events import CancelRequested, PauseRequested, ResumeRequested
from blockyard_scheduler.http.api import (
    Explain,
    FailuresHandler,
    Guard,
    Healthz,
    Metrics,
    NotFound,
    Page,
    Readyz,
    Run,
    Status,
    WorkerLog,
)
from blockyard_scheduler.http.control import Change, Rerun, Retry, Scale
from blockyard_scheduler.http.live import Broadcast, Events
from blockyard_scheduler.http.map import Blocks, Map, Tasks
from blockyard_scheduler.http.record import RecordHandler
from blockyard_scheduler.tls import Certificate

log = logging.getLogger(__name__)

PAGE = Path(__file__).parents[1] / "page"
BODY_BYTES = 2**16
IDLE_S = 60.0


def http_server(
    run: Run,
    registry: CollectorRegistry,
    *,
    token: str,
    host: str,
    open_metrics: bool = True,
    certificate: Certificate | None = None,
) -> HTTPServer:
    """Return the HTTP server of a scheduler; `host` is where it will listen, by TLS where there is a `certificate`."""
    guard = Guard(token, host)
    shared = {"run": run, "guard": guard}
    routes: list[tuple[str, Any, dict[str, Any]]] = [
        ("/healthz", Healthz, shared),
        ("/readyz", Readyz, shared),
        ("/metrics", Metrics, {**shared, "registry": registry, "is_open": open_metrics}),
        ("/api/v1/status", Status, shared),
        ("/api/v1/events", Events, {**shared, "broadcast": Broadcast(run)}),
        ("/api/v1/tasks", Tasks, shared),
        ("/api/v1/map", Map, {**shared, "lock": asyncio.Lock()}),
        ("/api/v1/blocks", Blocks, shared),
        ("/api/v1/failures", FailuresHandler, shared),
        ("/api/v1/explain", Explain, shared),
        ("/api/v1/record", RecordHandler, shared),
        ("/api/v1/log", WorkerLog, shared),
        ("/api/v1/pause", Change, {**shared, "event": PauseRequested()}),
        ("/api/v1/resume", Change, {**shared, "event": ResumeRequested()}),
        ("/api/v1/cancel", Change, {**shared, "event": CancelRequested()}),
        ("/api/v1/retry", Retry, shared),
        ("/api/v1/rerun", Rerun, shared),
        ("/api/v1/scale", Scale, shared),
        (r"/()", Page, {"guard": guard, "path": str(PAGE), "default_filename": "index.html"}),
        (r"/page/(.*)", Page, {"guard": guard, "path": str(PAGE)}),
    ]
    rules: Sequence[Any] = routes
    application = Application(
        list(rules),
        default_handler_class=NotFound,
        default_handler_args=shared,
        log_function=lambda handler: log.debug("%s %s", handler.request.method, handler.request.path),
    )
    context = certificate.context if certificate is not None else None
    return HTTPServer(application, ssl_options=context, max_body_size=BODY_BYTES, idle_connection_timeout=IDLE_S)
