"""What a block of a run on Kubernetes wrote: printed from what its scheduler found in the logs of pods."""

from __future__ import annotations

from blockyard.cli.app import DONE, FAILED
from blockyard.wire.api import PodLogs
from blockyard.wire.text import clean


def show(told: PodLogs) -> int:
    """Print what each pod wrote about the block; give the exit status: 1 where nothing was found."""
    pods = told.pods
    for pod in pods:
        if pod.text:
            n = pod.text.count("\n")
            print(f"--- pod {pod.pod}, {n:,} of {pod.lines:,} lines{' (cut: there are more)' if pod.cut else ''}")
            print(clean(pod.text), end="")
    if any(pod.text for pod in pods):
        return DONE
    for pod in pods:
        none = f"none of {pod.lines:,} lines is about this block" + (", and there are more" if pod.cut else "")
        print(f"--- pod {pod.pod}: {pod.error or none}")
    print(_why_nothing(told))
    return FAILED


def _why_nothing(told: PodLogs) -> str:
    left = f"{told.left:,} more pods of its pool were not read. " if told.left else ""
    there = [pod.pod for pod in told.pods if not pod.error]
    if not there:
        return f"{left}No log of a pod that may have run it can be read; a log goes with its pod."
    return (
        f"{left}A block's lines are known where --log-format is json; it may have written nothing, or in a pod that is"
        f" gone. All that one wrote: kubectl logs -n {told.namespace} {there[0]}"
    )
