"""The status report names what Kubernetes makes of the pools."""

from __future__ import annotations

from blockyard.wire.api import PoolStatus, RunStatus
from blockyard.wire.report import status_report


def report_of(*pools):
    """The report of a run of these pools and no task."""
    return status_report(
        RunStatus(
            run="r", state="running", epoch=1, elapsed_s=0.0, eta_s=None, tasks=[], workers=[], stale_releases=0,
            leases_expired=0, leases_granted=0, pools=list(pools),
        )
    )  # fmt: skip


def test_a_run_without_kubernetes_says_nothing_of_pools():
    """A local run has none."""
    assert "pool" not in report_of()


def test_a_pool_says_who_decides_and_why_pods_are_missing():
    """In a line: ready, asked for, of use, pending, Kubernetes' own words, and the last error."""
    gpu = PoolStatus(
        pool="gpu", desired=8, replicas=5, ready=2, pending=3, decides="person", reasons=["3 pods: no GPU"], error="403"
    )
    assert report_of(gpu).splitlines()[-1] == (
        "  pool gpu: 2 of 5 workers ready, set by a person; 8 of use; 3 pending; 3 pods: no GPU; 403"
    )
