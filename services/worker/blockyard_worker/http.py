"""Health and metrics of an agent over HTTP: ``/healthz``, ``/readyz``, ``/metrics``."""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

log = logging.getLogger("blockyard.worker")


@dataclass(frozen=True, slots=True)
class Facts:
    """What an agent tells of itself when it is asked."""

    connected: bool
    ready: bool
    """Whether a scheduler has ever taken it; stays so: readiness must not flap when the scheduler restarts."""
    connections: int
    leases: int
    restarts: int
    slots: Mapping[str, int] = field(default_factory=dict)
    """Slots by state: ``starting``, ``idle``, ``busy``."""
    outcomes: Mapping[str, int] = field(default_factory=dict)
    """Blocks by outcome since the start."""


class FactsCollector(Collector):
    """Turns facts into metrics at the scrape."""

    def __init__(self, facts: Callable[[], Facts]) -> None:
        self._facts = facts

    def collect(self) -> Iterator[Metric]:
        """Return all metrics."""
        facts = self._facts()
        yield GaugeMetricFamily("blockyard_worker_connected", "Whether a scheduler takes us.", float(facts.connected))
        yield CounterMetricFamily("blockyard_worker_connections", "Connections made.", facts.connections)
        yield GaugeMetricFamily("blockyard_worker_leases", "Blocks in hand.", facts.leases)
        yield CounterMetricFamily("blockyard_worker_restarts", "Processes that were replaced.", facts.restarts)
        yield _labelled(GaugeMetricFamily, "blockyard_worker_slots", "Slots, by state.", "state", facts.slots)
        blocks = "Blocks that ended here, by outcome."
        yield _labelled(CounterMetricFamily, "blockyard_worker_blocks", blocks, "outcome", facts.outcomes)
        info = GaugeMetricFamily(
            "blockyard_build_info", "1; the version is in the labels.", labels=["version", "python"]
        )
        info.add_metric([version("blockyard"), platform.python_version()], 1)
        yield info


def _labelled(
    kind: type[CounterMetricFamily | GaugeMetricFamily], name: str, text: str, label: str, values: Mapping[str, int]
) -> Metric:
    family = kind(name, text, labels=[label])
    for value, count in values.items():
        family.add_metric([value], count)
    return family


class _Healthz(RequestHandler):
    def get(self) -> None:
        self.finish("ok\n")  # that it is answered shows that the loop turns


class _Readyz(RequestHandler):
    def initialize(self, facts: Callable[[], Facts]) -> None:
        self._facts = facts

    def get(self) -> None:
        if not self._facts().ready:
            self.set_status(503)
            self.finish("no scheduler has taken this worker yet\n")
        else:
            self.finish("ready\n")


class _Metrics(RequestHandler):
    def initialize(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def get(self) -> None:
        self.set_header("Content-Type", CONTENT_TYPE_LATEST)
        self.finish(generate_latest(self._registry))


def serve(host: str, port: int, facts: Callable[[], Facts]) -> HTTPServer | None:
    """Listen on `host` and `port`; None, and a warning, where the port is taken: blocks matter more than metrics."""
    registry = CollectorRegistry()
    registry.register(FactsCollector(facts))
    application = Application(
        [
            ("/healthz", _Healthz),
            ("/readyz", _Readyz, {"facts": facts}),
            ("/metrics", _Metrics, {"registry": registry}),
        ],
        log_function=lambda _handler: None,
    )
    server = HTTPServer(application)
    try:
        sockets = bind_sockets(port, host)
    except OSError as error:
        log.warning("no metrics: %s:%d cannot be listened on (%s); see --http-port", host, port, error.strerror)
        return None
    server.add_sockets(sockets)
    log.info("metrics on %s, port %d", host, sockets[0].getsockname()[1])
    return server
