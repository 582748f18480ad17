"""The promises of docs/guarantees.md, held against faulty histories of a whole cluster in virtual time."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from blockyard.core import failfast
from blockyard.core import scheduler as core_scheduler
from blockyard.core.events import BlocksReleased, SendTaskBegan
from blockyard.core.listeners import Listeners
from blockyard.core.ready.frontier import Frontier
from blockyard.core.ready.retries import Retries
from blockyard.core.state.hold import RecoveryHold
from blockyard.core.state.leases import Grant, Leases
from blockyard.core.state.task import Kind
from blockyard.spec.errors import StoreError
from blockyard.testing.simulation import KINDS, BrokenPromiseError, Cluster, Faults, crash_everywhere, simulate
from blockyard.wire.messages import Outcome

SEEDS = int(os.environ.get("BLOCKYARD_SIMULATION_SEEDS", "300"))
CHUNK = 25


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_promises_hold_through_faults(first: int) -> None:
    """P1 to P6 hold at every step of every history, and every run ends; a failure names its seed."""
    for seed in range(first, min(first + CHUNK, SEEDS)):
        simulate(seed)


def test_faults_are_not_idle() -> None:
    """Histories do have kills, freezes and cuts of each kind, and blocks that ran more than once because of them."""
    clusters = [simulate(seed) for seed in range(40)]
    kinds = {kind for cluster in clusters for kind in cluster.counts}
    assert kinds == {*KINDS, "command lost", "answer lost", "sick worker"}
    assert sum(cluster.history.executions - cluster.history.total for cluster in clusters) > 0


def test_a_seed_repeats_its_history() -> None:
    """The same seed gives the same history, to the last random number."""
    one, other = simulate(7), simulate(7)
    assert (one.clock.now, one.history.executions, one.counts) == (
        other.clock.now,
        other.history.executions,
        other.counts,
    )
    assert one.rng.random() == other.rng.random()


@pytest.mark.parametrize("seed", [1, 2])
def test_promises_hold_wherever_a_process_is_killed(seed: int) -> None:
    """Killed before, or after, each command to the store and each send, by scheduler and worker: one at a time."""
    assert crash_everywhere(seed) > 200


def test_a_quiet_run_wastes_nothing() -> None:
    """Without faults each block runs exactly once."""
    for seed in range(20):
        cluster = simulate(seed, Faults(per_s=0.0, loses_answers=0.0))
        assert cluster.history.executions == cluster.history.total


def _unfenced(cluster: Cluster, _: pytest.MonkeyPatch) -> None:
    cluster.store.fenced = False


def _speaks_before_commit(cluster: Cluster, _: pytest.MonkeyPatch) -> None:
    cluster.speaks_first = True


def _workers_ignore_lost_leases(cluster: Cluster, _: pytest.MonkeyPatch) -> None:
    cluster.workers_stop = False


def _ended_leases_count(_: Cluster, patch: pytest.MonkeyPatch) -> None:
    """A release of a lease that has ended counts all the same."""
    granted: list[Grant] = []
    grant, released = Leases.grant, core_scheduler.Scheduler._blocks_released

    def granting(self: Leases, *args: Any, **kwargs: Any) -> Grant:
        granted.append(grant(self, *args, **kwargs))
        return granted[-1]

    def releasing(self: core_scheduler.Scheduler, event: BlocksReleased, now: float) -> None:
        for one in granted:
            at = (
                event.numbers[(event.numbers >= one.number) & (event.numbers < one.number + len(one.live))] - one.number
            )
            if len(at := at[~one.live[at]]):
                self._done(self.tasks[one.task], Kind.DONE, one.addresses[at])
        released(self, event, now)

    patch.setattr(Leases, "grant", granting)
    patch.setattr(core_scheduler.Scheduler, "_blocks_released", releasing)


def _leases_at_once_though_the_store_forgot(cluster: Cluster, patch: pytest.MonkeyPatch) -> None:
    cluster.keeps_quiet = False
    patch.setattr(RecoveryHold, "hear", lambda self, holds, leases: None)


def _conflicts_forgotten(_: Cluster, patch: pytest.MonkeyPatch) -> None:
    def none(self: Frontier, lo: tuple[int, ...], hi: tuple[int, ...]) -> np.ndarray:
        return np.zeros(tuple(e - b for b, e in zip(lo, hi, strict=True)), np.int32)

    patch.setattr(Frontier, "_count_conflicting", none)


def _returned_blocks_forgotten(_: Cluster, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Frontier, "push_back", lambda self, addresses: None)


def _workers_of_all_tasks_are_started_at_once(_: Cluster, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        Listeners, "due", lambda self, *_: [SendTaskBegan(one, task, 0) for one, task in self._wanting.items()]
    )


def _losses_spend_retries(_: Cluster, patch: pytest.MonkeyPatch) -> None:
    real = core_scheduler.lost_outcomes
    patch.setattr(
        core_scheduler, "lost_outcomes", lambda worker, grants, _, ran: real(worker, grants, Outcome.FAILED, ran)
    )


def _what_failed_waits_for_ever(_: Cluster, patch: pytest.MonkeyPatch) -> None:
    """No worker is given what another has failed."""
    patch.setattr(Retries, "take", lambda self, *_: np.empty(0, np.int64))


def _a_stop_by_one_machine_is_for_good(_: Cluster, patch: pytest.MonkeyPatch) -> None:
    """Fail-fast gives no chance to a worker that comes after a sick one alone has failed 10 times."""
    patch.setattr(failfast, "reopen", lambda core, newcomer: False)


@pytest.mark.parametrize(
    ("promises", "sabotage"),
    [
        (("P1",), _ended_leases_count),
        (("P1", "P2", "P3"), _unfenced),
        (("P3", "P4"), _leases_at_once_though_the_store_forgot),
        (("P2",), _speaks_before_commit),
        (("P3",), _workers_ignore_lost_leases),
        (("P3", "P4"), _conflicts_forgotten),
        (("P4",), _workers_of_all_tasks_are_started_at_once),
        (("P5",), _returned_blocks_forgotten),
        (("P5",), _what_failed_waits_for_ever),
        (("P5",), _a_stop_by_one_machine_is_for_good),
        (("P6",), _losses_spend_retries),
    ],
)
def test_the_simulation_finds_each_broken_promise(
    promises: tuple[str, ...], sabotage: Callable[[Cluster, pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each promise, broken on purpose, is found within a few hundred histories, and named."""
    found = next(filter(None, (_broken(seed, sabotage, monkeypatch) for seed in range(400))), "none in 400 histories")
    assert found.startswith(promises)


def _broken(
    seed: int, sabotage: Callable[[Cluster, pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> str | None:
    cluster = Cluster(seed, Faults(per_s=2.0))
    sabotage(cluster, monkeypatch)
    try:
        cluster.go()
    except BrokenPromiseError as error:
        return str(error)
    except StoreError as error:  # two leaders wrote over each other
        return f"P2: {error}"
    return None
