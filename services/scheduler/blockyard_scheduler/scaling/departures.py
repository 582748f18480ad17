"""Workers that Kubernetes knows to be dead: their pod is gone, or their container was started again.

Only of workers that are not connected: a lost connection alone proves nothing. How often a container was started is
compared with a look that was made when the worker was surely there already, so that a worker of the new container is
never taken for that of the old one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from blockyard_scheduler.scaling.cluster import Pod

OVER = ("Succeeded", "Failed")


def pod_of(worker: str) -> str:
    """Return the pod of an agent: its name is that of the host it runs on, a process id and a nonce.

    >>> pod_of("em-worker-default-7d4b9c-x2x4p-7-0a1b2c3d")
    'em-worker-default-7d4b9c-x2x4p'
    """
    return worker.split("/", maxsplit=1)[0].rsplit("-", 2)[0]


class Departures:
    """What was seen of workers and pods."""

    def __init__(self) -> None:
        self._known: set[str] = set()
        """Workers that were known at the last look."""
        self._restarts: dict[str, int] = {}
        """Of the pod of each worker, in a look after that worker was known: its container is that one or later."""

    def look(self, pods: Iterable[Pod], workers: Iterable[tuple[str, bool]]) -> Iterator[tuple[str, bool, str]]:
        """Return (worker, whether its death is evidence against its blocks, reason) of workers that are surely dead.

        `workers` are all that the scheduler knows, each with whether it is connected.
        """
        now, known = {pod.name: pod for pod in pods}, dict(workers)
        for worker, connected in known.items():
            pod = now.get(pod_of(worker))
            if worker in self._restarts and not connected:
                restarts = self._restarts[worker]
                if pod is None or pod.phase in OVER:
                    yield worker, pod is not None and pod.out_of_memory, f"its pod {pod_of(worker)} is gone"
                elif pod.restarts > restarts:
                    how = "ran out of memory" if pod.out_of_memory else "ended"
                    yield worker, pod.out_of_memory, f"the container of its pod {pod.name} {how}"
            elif worker in self._known and pod is not None:
                self._restarts.setdefault(worker, pod.restarts)
        for worker in self._restarts.keys() - known.keys():
            del self._restarts[worker]
        self._known = set(known)
