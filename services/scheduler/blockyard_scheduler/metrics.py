"""`/metrics`: gauges are read from the core at the scrape, counters from the meter; a scrape costs O(tasks + workers).

Labels are task, pool, outcome, reason and state, never a block, a worker or a pod. Every name is there from the start,
with zeros, so that a rule or a dashboard never meets a missing series.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version
from math import ceil
from typing import Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from blockyard.wire.api import RunStatus, TaskStatus
from blockyard.wire.messages import Outcome
from blockyard.wire.states import IN_RUN
from blockyard_scheduler.meter import Meter, Tally

WORKER_STATES = ("busy", "idle", "disconnected")
ETAS = (
    ("blockyard_eta_seconds", "Time to the end of a task; NaN while unknown.", "eta_s"),
    ("blockyard_eta_low_seconds", "A task takes longer than this nine times of ten.", "eta_p10_s"),
    ("blockyard_eta_high_seconds", "A task takes less than this nine times of ten.", "eta_p90_s"),
)
"""Name, help, and the field of the status."""
NOTICES = ("failing_fast", "bad_worker", "cannot_start", "slow_start", "plan_warning", "code_changed", "check_raises")
DIRECTIONS = ("up", "down")
KUBERNETES_VERBS = ("create", "get", "list", "patch")


class Source(Protocol):
    """What the metrics are read from; the service is one."""

    meter: Meter
    loop_lag_s: float
    store_durable: bool

    @property
    def outcomes(self) -> dict[tuple[str, Outcome], int]:
        """How many leases ended how, by task, since this scheduler leads."""

    @property
    def voxels(self) -> dict[str, int]:
        """How many voxels done blocks wrote, by task, since this scheduler leads."""

    def status(self) -> RunStatus | None:
        """Return the run, or None while this scheduler does not lead."""

    @property
    def pools(self) -> tuple[str, ...]:
        """All pools of the pipeline."""

    @property
    def scale_actions(self) -> Counter[tuple[str, str]]:
        """Changes of size by pool and direction."""

    @property
    def kubernetes_requests(self) -> Counter[tuple[str, str]]:
        """Requests to the Kubernetes API by verb and code."""

    @property
    def n_connections(self) -> int:
        """How many peers are connected."""

    @property
    def n_store_errors(self) -> int:
        """How often Redis did not do what was asked."""


class RunCollector(Collector):
    """Gives the metrics of one scheduler process."""

    def __init__(self, source: Source) -> None:
        """Read from `source` at each scrape."""
        self._source = source

    def describe(self) -> list[Metric]:
        """Nothing in advance: a registry need not scrape at registration."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Return all families."""
        status = self._source.status()
        tasks = status.tasks if status else []
        yield from self._blocks(tasks)
        yield from self._workers(status)
        yield from self._counters(status)
        yield from self._histograms()
        yield from self._process(status)

    def _blocks(self, tasks: list[TaskStatus]) -> Iterator[Metric]:
        blocks = GaugeMetricFamily(
            "blockyard_blocks", "Blocks of the run, by task and state.", labels=["task", "state"]
        )
        progress = GaugeMetricFamily(
            "blockyard_progress_ratio", "Share of blocks that are done or skipped.", labels=["task"]
        )
        etas = [GaugeMetricFamily(name, text, labels=["task"]) for name, text, _ in ETAS]
        runnable = GaugeMetricFamily(
            "blockyard_blocks_runnable", "Blocks that run or could run now: useful parallelism.", labels=["task"]
        )
        for task in tasks:
            for state in IN_RUN:
                blocks.add_metric([task.id, state], getattr(task, state))
            progress.add_metric([task.id], task.progress)
            for family, (_, _, field) in zip(etas, ETAS, strict=True):
                known = 0.0 if task.over else getattr(task, field)
                family.add_metric([task.id], float("nan") if known is None else known)
            runnable.add_metric([task.id], task.runnable)
        yield from (blocks, progress, *etas, runnable)

    def _workers(self, status: RunStatus | None) -> Iterator[Metric]:
        workers = GaugeMetricFamily("blockyard_workers", "Workers, by pool and state.", labels=["pool", "state"])
        desired = GaugeMetricFamily(
            "blockyard_workers_desired", "Workers that could run a block now, by pool.", labels=["pool"]
        )
        actions = CounterMetricFamily(
            "blockyard_scale_actions", "Changes of a pool's size.", labels=["pool", "direction"]
        )
        for pool in self._source.pools:
            ours = [worker for worker in status.workers if worker.pool == pool] if status else []
            online = [worker for worker in ours if worker.connected and worker.slots]  # 0 slots: only listens
            busy = sum(worker.leases > 0 for worker in online)
            offline = sum(not worker.connected for worker in ours)
            for state, n in zip(WORKER_STATES, (busy, len(online) - busy, offline), strict=True):
                workers.add_metric([pool, state], n)
            runnable = sum(t.runnable for t in status.tasks if t.pool == pool) if status else 0
            slots = sum(worker.slots for worker in online) / len(online) if online else 1
            scaled = [p.desired for p in status.pools if p.pool == pool] if status else []
            desired.add_metric([pool], scaled[0] if scaled else ceil(runnable / slots))
            for direction in DIRECTIONS:
                actions.add_metric([pool, direction], self._source.scale_actions[pool, direction])
        yield from (workers, desired, actions)

    def _counters(self, status: RunStatus | None) -> Iterator[Metric]:
        meter = self._source.meter
        completed = CounterMetricFamily(
            "blockyard_blocks_completed", "Blocks that ended, by task and outcome.", labels=["task", "outcome"]
        )
        for task in meter.tasks:
            for outcome in (Outcome.SUCCESS, Outcome.SKIPPED):
                completed.add_metric([task, outcome.name.lower()], self._source.outcomes.get((task, outcome), 0))
            completed.add_metric([task, "failed"], meter.failed[task])
        voxels = CounterMetricFamily("blockyard_voxels_completed", "Voxels that done blocks wrote.", labels=["task"])
        for task in meter.tasks:
            voxels.add_metric([task], self._source.voxels.get(task, 0))
        retries = CounterMetricFamily(
            "blockyard_block_retries", "Attempts that failed and were tried again.", labels=["task", "reason"]
        )
        for (task, reason), n in meter.retries.items():
            retries.add_metric([task, reason], n)
        wasted = CounterMetricFamily(
            "blockyard_wasted_seconds", "Time of attempts that came to nothing.", labels=["reason"]
        )
        for reason, seconds in meter.wasted_s.items():
            wasted.add_metric([reason], seconds)
        refused = CounterMetricFamily(
            "blockyard_handshakes_refused", "Connections that were not let in.", labels=["reason"]
        )
        for reason, n in meter.refused.items():
            refused.add_metric([reason], n)
        kubernetes = CounterMetricFamily(
            "blockyard_kubernetes_requests", "Requests to the Kubernetes API.", labels=["verb", "code"]
        )
        asked = self._source.kubernetes_requests
        for verb, code in sorted({*((verb, "200") for verb in KUBERNETES_VERBS), *asked}):
            kubernetes.add_metric([verb, code], asked[verb, code])
        yield from (completed, voxels, retries, wasted, refused, kubernetes)
        for name, text, value in (
            ("blockyard_leases_granted", "Leases sent to workers.", meter.granted),
            ("blockyard_leases_expired", "Leases that ended without a word.", status.leases_expired if status else 0),
            ("blockyard_stale_releases", "Releases of leases that were over.", status.stale_releases if status else 0),
            ("blockyard_store_errors", "Commands that Redis did not carry out.", self._source.n_store_errors),
            ("blockyard_turns", "Turns of the scheduler's loop.", meter.turns),
        ):
            yield CounterMetricFamily(name, text, value=value)

    def _histograms(self) -> Iterator[Metric]:
        meter = self._source.meter
        durations = HistogramMetricFamily(
            "blockyard_block_duration_seconds", "How long blocks ran, by task.", labels=["task"]
        )
        for task, tally in meter.durations.items():
            durations.add_metric([task], *_buckets(tally))
        waits = HistogramMetricFamily(
            "blockyard_block_wait_seconds", "How long a worker that wanted blocks waited for them."
        )
        waits.add_metric([], *_buckets(meter.waits))
        commits = HistogramMetricFamily("blockyard_store_commit_seconds", "How long one commit to Redis took.")
        commits.add_metric([], *_buckets(meter.commits))
        yield from (durations, waits, commits)

    def _process(self, status: RunStatus | None) -> Iterator[Metric]:
        source = self._source
        quiet_s = status.quiet_s if status else 0.0
        for name, text, value in (
            ("blockyard_loop_lag_seconds", "Longest time the loop was late in the last seconds.", source.loop_lag_s),
            ("blockyard_connections", "Peers that are connected.", source.n_connections),
            ("blockyard_leader", "1 where this scheduler leads its run.", int(status is not None)),
            ("blockyard_quiet_seconds", "Nothing is leased for so long: Redis may have forgotten leases.", quiet_s),
            ("blockyard_store_durable", "1 where Redis keeps an append-only file.", int(source.store_durable)),
        ):
            yield GaugeMetricFamily(name, text, value=value)
        said = Counter(notice.kind for notice in status.notices) if status else Counter()
        notices = GaugeMetricFamily("blockyard_notices", "What a person should know now, by reason.", labels=["reason"])
        for reason in NOTICES:
            notices.add_metric([reason], said[reason])
        yield notices
        build = GaugeMetricFamily(
            "blockyard_build_info", "1; the version is in the labels.", labels=["version", "python"]
        )
        build.add_metric([version("blockyard"), platform.python_version()], 1)
        yield build


def _buckets(tally: Tally) -> tuple[list[tuple[str, float]], float]:
    """Return the cumulated buckets of a histogram as Prometheus wants them, and the sum."""
    bounds = [*map(float, tally.bounds), float("inf")]
    names = ["+Inf" if bound == float("inf") else repr(bound) for bound in bounds]
    return list(zip(names, tally.counts.cumsum().astype(float).tolist(), strict=True)), tally.total


def registry_of(source: Source) -> CollectorRegistry:
    """Return a registry that scrapes `source`, and nothing of other libraries."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(RunCollector(source))
    return registry
