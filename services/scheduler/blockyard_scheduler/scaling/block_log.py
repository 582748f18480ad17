"""What a block wrote: lines of JSON in the logs of the pods that may have run it, found at a bounded cost.

The pods of workers that are known to have had the block come first, the last one at the head. Other pods of the pool
are read where some attempt's worker is not known, or where nothing was found: a scheduler that was started again, say,
does not know who ran what.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence

from blockyard.wire.api import PodLog, PodLogs
from blockyard_scheduler.scaling.cluster import Cluster, ClusterError, Pod
from blockyard_scheduler.scaling.departures import pod_of

WITHIN_S = 7.0
"""For all pods together; shorter than the patience of who asks."""
MOST_PODS = 50


def is_about(task: str, block: int) -> Callable[[bytes], bool]:
    """Return what tells whether a line is JSON that names the block.

    >>> wanted = is_about("smooth", 7)
    >>> [wanted(line) for line in (b'{"task": "smooth", "block": 7}', b'{"task": "smooth", "block": 71}', b"block 7")]
    [True, False, False]
    """
    number = str(block).encode()

    def wanted(line: bytes) -> bool:
        if number not in line or not line.startswith(b"{"):
            return False
        try:
            said = json.loads(line)
        except ValueError:
            return False
        return isinstance(said, dict) and (said.get("task"), said.get("block")) == (task, block)

    return wanted


class BlockLogs:
    """The logs of the pods of a release."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        """Read nothing yet."""
        self._cluster = cluster
        self._namespace = namespace

    async def find(
        self, wanted: Callable[[bytes], bool], workers: Sequence[str], pods: Iterable[Pod], attempts: int
    ) -> PodLogs:
        """Read the pods of `workers`, the latest first, and those of `pods` that may have run one of `attempts`.

        `attempts` 0: not known how many there were, so all of them.
        """
        until_s = time.monotonic() + WITHIN_S
        there = {pod.name: pod for pod in pods}
        known = list(dict.fromkeys(map(pod_of, workers)))
        read: list[PodLog] = []
        for n, name in enumerate(known):
            if n and time.monotonic() >= until_s:
                return PodLogs(namespace=self._namespace, pods=read, left=len(known) - n)
            read.append(await self._read(name, there.get(name), wanted, until_s))
        others = [pod for name, pod in there.items() if name not in known]
        if attempts and len(known) >= attempts and any(log.text for log in read):
            others = []
        for n, pod in enumerate(others):
            if n >= MOST_PODS or time.monotonic() >= until_s:
                return PodLogs(namespace=self._namespace, pods=read, left=len(others) - n)
            read.append(await self._read(pod.name, pod, wanted, until_s))
        return PodLogs(namespace=self._namespace, pods=read)

    async def _read(self, name: str, pod: Pod | None, wanted: Callable[[bytes], bool], until_s: float) -> PodLog:
        """Read the log of a pod's container, and that of the one before it, if there was one."""
        told = PodLog(pod=name)
        for previous in (True, False) if pod is not None and pod.restarts else (False,):
            try:
                log = await self._cluster.log(name, wanted, until_s, previous=previous)
            except ClusterError as error:
                if not previous:  # what an earlier container wrote may be gone, which is no fault
                    told.error = str(error)
                continue
            told.lines += log.lines
            told.text += log.text
            told.cut |= log.cut
        return told
