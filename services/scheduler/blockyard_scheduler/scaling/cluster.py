"""The Kubernetes API as far as scaling needs it, through the official client, from a thread of its own.

Every call may fail; it then raises `ClusterError`, with a sentence and how long to wait at the least. Nothing here
retries: the caller comes again anyway.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from blockyard.spec.errors import BlockyardError, SpecError
from blockyard_scheduler.scaling.config import Scaling
from blockyard_scheduler.scaling.rights import Right, needed

T = TypeVar("T")

CONNECT_S, ANSWER_S = 5.0, 10.0
LOG_BYTES = 2**26
"""Read of one container's log; the kubelet gives its newest file, of 10 MiB unless it was told otherwise."""
KEPT_BYTES = 2**20
MOST_EVENTS, LONGEST_WARNING = 500, 400
COMPONENT = "blockyard-scheduler"
COST = "controller.kubernetes.io/pod-deletion-cost"
MANAGED_COST = "karpenter.sh/managed-deletion-cost"
"""Set by Karpenter on pods whose cost is its own business."""


class ClusterError(BlockyardError):
    """The API server did not do what was asked."""

    def __init__(self, sentence: str, *, wait_s: float = 0.0, stale: bool = False, gone: bool = False) -> None:
        """`wait_s`: it asked us to wait; `stale`: our credentials are to be read again; `gone`: there is none."""
        super().__init__(sentence)
        self.wait_s = wait_s
        self.stale = stale
        self.gone = gone


@dataclass(frozen=True, slots=True)
class Deployment:
    """The Deployment of a pool."""

    replicas: int
    ready: int
    uid: str = ""
    """Another one when it was deleted and made again."""
    troubles: tuple[str, ...] = ()
    """Why pods can't be made, in Kubernetes' words (a quota, say)."""


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod of a worker."""

    name: str
    pool: str
    phase: str
    restarts: int = 0
    out_of_memory: bool = False
    """Whether its container ended last because it was out of memory."""
    cost: int | None = None
    """Deletion cost; None: not set."""
    annotated: bool = False
    """Whether it has any annotation."""
    managed: bool = False
    """Whether somebody else sets the cost."""
    trouble: str = ""
    """Why it does not run, in Kubernetes' words."""


@dataclass(frozen=True, slots=True)
class Log:
    """What was found in a container's log."""

    lines: int
    """So many were read."""
    text: str
    """Those that were wanted."""
    cut: bool
    """Whether there was more to read, or to keep."""


class Cluster:
    """The release in its cluster."""

    def __init__(self, scaling: Scaling, configure: Callable[[], Any] | None = None) -> None:
        """Connect to nothing yet; `configure` gives the client's configuration (None: that of the pod, or kubectl's).

        Raises SpecError where the client is not installed or has nothing to go by.
        """
        self.requests: Counter[tuple[str, str]] = Counter()
        """Requests by verb and code; code ``none``: no answer."""
        self._scaling = scaling
        self._configure = configure or _configuration
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="kubernetes")
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="kubernetes-log")
        """Another, so that a long log does not hold up the pools."""
        self._connect()

    def _connect(self) -> None:
        try:
            from kubernetes import client
        except ImportError:
            raise SpecError("--scaling needs the package kubernetes: pip install 'blockyard[scheduler]'") from None
        api = client.ApiClient(self._configure())
        self._apps, self._core = client.AppsV1Api(api), client.CoreV1Api(api)
        self._rights = client.AuthorizationV1Api(api)

    def close(self) -> None:
        """End the threads; a call that is under way is not waited for."""
        for thread in (self._thread, self._reader):
            thread.shutdown(wait=False, cancel_futures=True)

    # --- calls -------------------------------------------------------------------------------------------------

    async def deployment(self, pool: str) -> Deployment:
        """Look at the Deployment of a pool."""
        name = self._scaling.pools[pool].deployment
        found: Any = await self._call("get", self._apps.read_namespaced_deployment, name)
        conditions = found.status.conditions or []
        troubles = [c.message for c in conditions if c.type == "ReplicaFailure" and c.status == "True" and c.message]
        replicas = found.spec.replicas if found.spec.replicas is not None else 1
        return Deployment(
            replicas=replicas,
            ready=found.status.ready_replicas or 0,
            uid=found.metadata.uid or "",
            troubles=tuple(troubles),
        )

    async def pods(self) -> list[Pod]:
        """Look at all pods of workers of the release."""
        selector = f"app.kubernetes.io/instance={self._scaling.release},app.kubernetes.io/component=worker"
        found = await self._call("list", self._core.list_namespaced_pod, label_selector=selector)
        return [_pod(item) for item in found.items]

    async def warnings(self) -> dict[str, str]:
        """Return the last warning about each pod of the namespace that there is one about."""
        selector = "type=Warning,involvedObject.kind=Pod"
        found = await self._call("list", self._core.list_namespaced_event, field_selector=selector, limit=MOST_EVENTS)
        told = sorted(found.items, key=lambda event: str(event.last_timestamp or event.event_time or ""))
        return {str(event.involved_object.name): f"{event.reason}: {event.message}"[:LONGEST_WARNING] for event in told}

    async def scale(self, pool: str, replicas: int, seen: int) -> None:
        """Set the number of pods of a pool, unless it is not what was `seen` any more: then a person was faster."""
        name = self._scaling.pools[pool].deployment
        # A JSON patch: the client takes every patch for one (and the API server knows no other of it by that name).
        # "add" also replaces; a Scale has no `replicas` where they are 0, which "replace" and "test" would fail on.
        body = [{"op": "add", "path": "/spec/replicas", "value": replicas}]
        if seen:
            body.insert(0, {"op": "test", "path": "/spec/replicas", "value": seen})
        await self._call("patch", self._apps.patch_namespaced_deployment_scale, name, body=body)

    async def tell(self, pool: str, uid: str, message: str) -> None:
        """Leave a word about a pool where `kubectl describe deployment` and `kubectl events` show it."""
        name, now = self._scaling.pools[pool].deployment, datetime.now(UTC).isoformat()
        namespace = self._scaling.namespace
        deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "name": name, "namespace": namespace, "uid": uid}
        body = {
            "metadata": {"generateName": f"{name}.", "namespace": namespace}, "involvedObject": deployment,
            "type": "Normal", "reason": "Scaled", "message": message, "count": 1, "source": {"component": COMPONENT},
            "firstTimestamp": now, "lastTimestamp": now,
        }  # fmt: skip
        await self._call("create", self._core.create_namespaced_event, body=body)

    async def set_cost(self, pod: Pod, cost: int) -> None:
        """Say how bad it would be to delete a pod."""
        place, value = "/metadata/annotations/" + COST.replace("/", "~1"), str(cost)
        patch: dict[str, Any] = {"path": place, "value": value}
        if not pod.annotated:
            patch = {"path": "/metadata/annotations", "value": {COST: value}}
        await self._call("patch", self._core.patch_namespaced_pod, pod.name, body=[{"op": "add", **patch}])

    async def log(self, pod: str, wanted: Callable[[bytes], bool], until_s: float, *, previous: bool = False) -> Log:
        """Read what a pod's container wrote, and keep the lines that are `wanted`.

        `until_s` (monotonic): when to stop at the latest; `previous`: of the container before it, which was ended.
        """
        read = functools.partial(self._read_log, wanted=wanted, until_s=until_s, previous=previous)
        return await self._call("get", read, pod, thread=self._reader)

    def _read_log(
        self,
        pod: str,
        namespace: str,
        *,
        wanted: Callable[[bytes], bool],
        until_s: float,
        previous: bool,
        _request_timeout: tuple[float, float],
    ) -> Log:
        response: Any = self._core.read_namespaced_pod_log(
            pod, namespace, container="worker", previous=previous, limit_bytes=LOG_BYTES,
            _preload_content=False, _request_timeout=_request_timeout,
        )  # fmt: skip
        with contextlib.closing(response):
            return _lines_of(response.stream(2**16), wanted, until_s)

    async def missing(self) -> list[Right]:
        """Ask the API server which of the rights that we need it would not grant."""
        found = []
        for right in needed(self._scaling):
            attributes = {
                "namespace": self._scaling.namespace, "verb": right.verb, "group": right.group, "name": right.name,
                "resource": right.resource, "subresource": right.subresource,
            }  # fmt: skip
            body = {"spec": {"resourceAttributes": {key: value for key, value in attributes.items() if value}}}
            review: Any = await self._call("create", self._rights.create_self_subject_access_review, body, of_all=True)
            if not review.status.allowed:
                found.append(right)
        return found

    async def _call(
        self,
        verb: str,
        method: Callable[..., T],
        *names: Any,
        of_all: bool = False,
        thread: ThreadPoolExecutor | None = None,
        **arguments: Any,
    ) -> T:
        places = names if of_all else (*names, self._scaling.namespace)
        call = functools.partial(method, *places, **arguments, _request_timeout=(CONNECT_S, ANSWER_S))
        try:
            answer = await asyncio.get_running_loop().run_in_executor(thread or self._thread, call)
        except Exception as error:  # the client raises its own errors and those of urllib3, ssl and socket
            code, failed = _failure(error, verb)
            self.requests[verb, code] += 1
            if failed.stale:
                self._connect()
            raise failed from error
        self.requests[verb, "200"] += 1
        return answer


def _configuration() -> Any:
    from kubernetes import client, config

    configuration = client.Configuration()
    configuration.retries = False
    try:
        try:
            config.load_incluster_config(configuration)  # type: ignore[no-untyped-call]
            configuration.proxy = None  # the client takes that of the environment, and no proxy leads into the cluster
        except config.ConfigException:
            config.load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    except config.ConfigException as error:
        raise SpecError(f"--scaling is set, and no Kubernetes API is known here: {error}") from None
    return configuration


def _failure(error: Exception, verb: str) -> tuple[str, ClusterError]:
    """Return the code for the metrics, and what to tell."""
    code = getattr(error, "status", None)
    if not isinstance(code, int) or not code:
        return "none", ClusterError(f"the Kubernetes API did not answer ({_reason(error)})")
    said = _said(error)
    if code == 401:
        return "401", ClusterError(f"the Kubernetes API does not know us (401: {said})", stale=True)
    if code == 403:
        return "403", ClusterError(f"the Kubernetes API forbids it (403: {said}); give the scheduler's Role that rule")
    if code == 404:
        return "404", ClusterError(f"Kubernetes does not have it (404: {said})", gone=True)
    headers = getattr(error, "headers", None) or {}
    try:
        wait_s = float(headers.get("Retry-After", 0))
    except ValueError:
        wait_s = 0.0
    return str(code), ClusterError(f"the Kubernetes API answered {verb} with {code}: {said}", wait_s=wait_s)


def _said(error: Exception) -> str:
    try:
        return str(json.loads(getattr(error, "body", "") or "{}")["message"])
    except (ValueError, KeyError, TypeError):
        return str(getattr(error, "reason", "") or type(error).__name__)


def _reason(error: Exception) -> str:
    cause = getattr(error, "reason", None) or error
    return f"{type(cause).__name__}: {str(cause)[:200]}" if str(cause) else type(cause).__name__


def _lines_of(chunks: Iterable[bytes], wanted: Callable[[bytes], bool], until_s: float) -> Log:
    """Go through a log that comes in pieces of any length."""
    kept, rest, lines, size, cut = bytearray(), bytearray(), 0, 0, False
    for chunk in chunks:
        size += len(chunk)
        end = chunk.rfind(b"\n") + 1
        whole = bytes(rest + chunk[:end]).split(b"\n")[:-1] if end else []
        if end:
            rest.clear()
        rest += chunk[end:]  # in place: a line may be as long as the log
        lines += len(whole)
        kept += b"".join(line + b"\n" for line in whole if wanted(line))
        cut = size >= LOG_BYTES or len(kept) > KEPT_BYTES
        if cut or time.monotonic() >= until_s:
            return Log(lines, kept.decode(errors="replace"), cut=True)
    if rest:
        lines += 1
        kept += rest + b"\n" if wanted(bytes(rest)) else b""
    return Log(lines, kept.decode(errors="replace"), cut)


def _pod(item: Any) -> Pod:
    annotations = item.metadata.annotations or {}
    containers = item.status.container_statuses or []
    states = [state for status in containers for state in (status.last_state, status.state) if state is not None]
    cost = annotations.get(COST, "")
    return Pod(
        name=item.metadata.name,
        pool=(item.metadata.labels or {}).get("blockyard/pool", ""),
        phase=item.status.phase or "",
        restarts=sum(status.restart_count or 0 for status in containers),
        out_of_memory=any(state.terminated and state.terminated.reason == "OOMKilled" for state in states),
        cost=int(cost) if cost.lstrip("-").isdecimal() else None,
        annotated=bool(annotations),
        managed=MANAGED_COST in annotations,
        trouble=_trouble(item, containers),
    )


def _trouble(item: Any, containers: list[Any]) -> str:
    for condition in item.status.conditions or []:
        if condition.type == "PodScheduled" and condition.status == "False":
            return f"{condition.reason}: {condition.message}" if condition.message else str(condition.reason)
    for status in [*(item.status.init_container_statuses or []), *containers]:
        waiting = status.state.waiting if status.state else None
        if waiting is not None and waiting.reason not in (None, "ContainerCreating", "PodInitializing"):
            return f"{waiting.reason}: {waiting.message}" if waiting.message else str(waiting.reason)
    return ""
