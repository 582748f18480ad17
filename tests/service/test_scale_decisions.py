"""How many workers, who decides, which go first: pure rules, and the order in which Kubernetes picks its victims."""

from __future__ import annotations

import dataclasses
import itertools
import random

import msgspec
import pytest

from blockyard.spec.errors import SpecError
from blockyard_scheduler.scaling.api_errors import ApiErrors
from blockyard_scheduler.scaling.cluster import ClusterError, Pod
from blockyard_scheduler.scaling.config import PoolScaling, read_scaling
from blockyard_scheduler.scaling.costs import LASTS_S, Costs
from blockyard_scheduler.scaling.decide import LULL_S, Note, PoolScaler
from blockyard_scheduler.scaling.departures import Departures


def scaler(seen=None, note=None, **fields):
    made = PoolScaler(PoolScaling("d", **{"slots": 2, "max": 20} | fields), note)
    if seen is not None:
        made.observe(seen, 0.0)
    return made


def automatic(seen=10, **fields):
    """A pool that was scaled to `seen` by us, long ago."""
    return scaler(seen, Note((seen,)), **fields)


@pytest.mark.parametrize(
    ("runnable", "wanted"), [(0, 0), (1, 1), (2, 1), (3, 2), (39, 20), (41, 20), (10**9, 20)]
)  # fmt: skip
def test_as_many_as_could_run_a_block(runnable, wanted):
    """Blocks that run or could run, divided by slots, rounded up, no more than the limit."""
    assert scaler(1).wanted(runnable) == wanted


def test_never_fewer_than_the_limit_while_the_run_lasts():
    """And none when it is over."""
    pool = automatic(10, min=3)
    assert pool.wanted(0) == 3
    assert pool.target(0, 1000.0, over=True) == 0


def test_a_pool_grows_at_once():
    """Workers that could run a block now should not wait."""
    assert automatic(2).target(20, 0.0, over=False) == 10


def test_a_pool_shrinks_by_a_quarter_after_a_lull():
    """To no less than the most that was wanted in the last minute, and never in one step."""
    pool, now, sizes = automatic(16), 100.0, []
    while now < 1000.0:
        target = pool.target(8, now, over=False)
        if target is not None:
            pool.setting(target, now)
            pool.observe(target, now)
            sizes.append((target, now))
        now += 5.0
    assert [size for size, _ in sizes] == [12, 9, 7, 6, 5, 4]
    assert all(later - earlier >= LULL_S for (_, earlier), (_, later) in itertools.pairwise(sizes))


def test_a_short_lull_costs_no_worker():
    """What was wanted a moment ago is wanted again in a moment."""
    pool = automatic(10)
    for now in range(0, 300, 5):
        assert pool.target(20 if now % 50 == 0 else 0, float(now), over=False) is None


def test_a_successor_shrinks_nothing_at_its_first_look():
    """It knows nothing yet of what was wanted in the last minute, nor of all that is ready."""
    pool = PoolScaler(PoolScaling("d", max=100), Note((40,)))
    pool.observe(40, 1000.0)
    assert pool.target(0, 1000.0, over=False) is None
    assert pool.target(0, 1000.0 + LULL_S, over=False) == 30


def test_the_first_number_is_ours_to_set():
    """A Deployment without `replicas` begins with one; where automation is off, `workers` says how many."""
    assert scaler(1).target(10, 0.0, over=False) == 5
    fixed = scaler(1, autoscale=False, workers=4)
    assert fixed.target(10, 0.0, over=False) == 4
    fixed.setting(4, 0.0)
    fixed.observe(4, 1.0)
    assert fixed.target(100, 2.0, over=False) is None
    assert fixed.target(0, 3.0, over=True) is None
    assert fixed.decides == "nobody"


def test_what_somebody_else_sets_stays():
    """Until automation is asked for; the note tells a successor."""
    pool = automatic(4)
    pool.observe(9, 1.0)
    assert pool.decides == "person"
    assert pool.target(0, 500.0, over=False) is None
    successor = scaler(9, msgspec.msgpack.decode(msgspec.msgpack.encode(pool.note), type=Note))
    assert successor.target(0, 500.0, over=False) is None
    successor.asked(None)
    assert successor.target(40, 500.0, over=False) == 20


def test_what_we_were_about_to_set_is_not_somebody_elses():
    """The answer to our own request may be lost, or we may die before or after it."""
    for seen in (4, 7):
        pool = scaler(4, Note((4,)))
        note = pool.setting(7, 1.0)
        successor = scaler(seen, note)
        assert successor.decides == "auto"
    assert scaler(5, note).decides == "person"


def test_what_a_person_asks_for_while_our_own_number_is_under_way_wins():
    """Whether ours was set or not: the answer may have been lost, and both are known to be no other person's."""
    for seen in (4, 7, 3):
        pool = automatic(4)
        pool.setting(7, 1.0)
        successor = scaler(seen, pool.asked(3))
        assert successor.decides == "person"
        assert successor.target(100, 2.0, over=False) == (3 if seen != 3 else None)


def test_the_first_look_is_the_first_note():
    """From then on, a number that is not ours is a person's."""
    pool = PoolScaler(PoolScaling("d", max=20))
    pool.observe(1, 0.0, uid="a")
    assert pool.note == Note((1,), uid="a")
    pool.observe(5, 1.0, uid="a")
    assert pool.decides == "person"


@pytest.mark.parametrize(
    ("note", "becomes", "target"),
    [
        (Note((6,), uid="a"), "auto", 2),
        (Note((6,), person=True, uid="a"), "person", 6),
        (Note((6,), 9, person=True, uid="a"), "person", 9),
        (Note((0,), ended=True, uid="a"), "auto", 2),
    ],
)
def test_a_deployment_that_is_made_again_begins_anew(note, becomes, target):
    """With a pod by default, which is nobody's decision; what a person has set is set again."""
    pool = PoolScaler(PoolScaling("d", max=20), note)
    pool.observe(1, 0.0, uid="b")
    assert pool.decides == becomes
    assert pool.target(2, 0.0, over=False) == target
    pool.observe(1, 1.0, uid="c")
    assert pool.target(0, 1.0, over=True) == 0


def test_numbers_asked_for_while_nothing_can_be_looked_at_are_noted_once_each():
    """What may have been set is accounted for; to ask again and again does not let the note grow."""
    pool = PoolScaler(PoolScaling("d", max=20), Note((5,)))
    for _ in range(20):
        for replicas in (3, 4):
            pool.asked(replicas)
    assert (pool.note.known, pool.note.next) == ((5, 4, 3), 4)


def test_a_number_asked_for_through_us_is_set_although_it_fails_at_first():
    """Also by a successor."""
    pool = automatic(8)
    note = pool.asked(3)
    successor = scaler(8, note)
    assert successor.target(100, 2.0, over=False) == 3
    successor.observe(3, 3.0)
    assert successor.target(100, 4.0, over=False) is None


def test_a_run_that_goes_on_gets_workers_again():
    """After its end the pool is at zero once; blocks that are tried again need workers, whoever decided before."""
    pool = automatic(5)
    assert pool.target(0, 1.0, over=True) == 0
    pool.setting(0, 1.0, ended=True)
    pool.observe(0, 2.0)
    assert pool.target(0, 3.0, over=True) is None
    assert pool.target(8, 4.0, over=False) == 4


def test_a_pool_is_scaled_to_zero_at_the_end_until_it_is():
    """The request may fail. What a person sets after that stays, by whatever way."""
    pool = automatic(5)
    for now in (1.0, 2.0):
        assert pool.target(0, now, over=True) == 0
        pool.setting(0, now, ended=True)
        pool.observe(5, now)
    pool.observe(0, 3.0)
    pool.asked(3)
    assert pool.target(0, 3.0, over=True) == 3
    pool.setting(3, 3.0, ended=True)
    pool.observe(3, 4.0)
    assert (pool.decides, pool.target(0, 5.0, over=True)) == ("person", None)
    pool.observe(7, 6.0)
    assert pool.target(0, 7.0, over=True) is None


def test_a_pool_that_is_empty_at_the_end_has_ended():
    """A person who scales it then is not taken for one of the run."""
    pool = automatic(0)
    assert pool.target(0, 1.0, over=True) is None
    pool.observe(2, 2.0)
    assert pool.target(0, 3.0, over=True) is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("pools: {a: {deployment: d, slots: 0}}\nnamespace: lab\nrelease: r", "slots 0"),
        ("pools: {a: {deployment: d, min: 5, max: 2}}\nnamespace: lab\nrelease: r", "min 5, max 2"),
        ("pools: {a: {}}\nnamespace: lab\nrelease: r", "deployment"),
        ("- 1", "is no file of pools"),
    ],
)
def test_a_bad_scaling_file_is_a_sentence(tmp_path, text, says):
    """It names the file, the pool and the values."""
    (tmp_path / "scaling.yaml").write_text(text)
    with pytest.raises(SpecError, match="--scaling") as caught:
        read_scaling(str(tmp_path / "scaling.yaml"))
    assert says in str(caught.value)


# ----- which pods go --------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Worker:
    """A pod of the model."""

    pod: Pod
    created_s: float
    busy_since_s: float | None = None


def victims(workers, n):
    """Give the pods that a ReplicaSet deletes first: the documented order, of pods that are all running and ready."""
    order = sorted(workers, key=lambda w: (w.pod.cost or 0, -w.pod.restarts, -w.created_s))
    return order[:n]


@pytest.mark.parametrize("seed", range(50))
def test_no_busy_pod_goes_while_an_idle_one_stays(seed):
    """Random histories of a pool that shrinks: with our costs Kubernetes takes idle pods first."""
    rng = random.Random(seed)
    workers = [Worker(Pod(f"p{n}", "default", "Running", rng.choice([0, 0, 3])), rng.random()) for n in range(12)]
    costs, now = Costs(), 0.0
    while len(workers) > 2:
        now += rng.uniform(1.0, 40.0)
        for worker in workers:
            if rng.random() < 0.4:
                worker.busy_since_s = None if worker.busy_since_s is not None else now
        busy_s = {w.pod.name: now - w.busy_since_s for w in workers if w.busy_since_s is not None}
        shrinks = rng.random() < 0.3
        for pod, cost in list(costs.changes([w.pod for w in workers], busy_s, now, at_once=shrinks)):
            (worker,) = [w for w in workers if w.pod is pod]
            worker.pod = dataclasses.replace(pod, cost=cost)
            costs.note(pod.name, cost)
        if shrinks:
            gone = victims(workers, rng.randint(1, 3))
            stay = [w for w in workers if w not in gone]
            idle_left = any(w.busy_since_s is None for w in stay)
            assert not (idle_left and any(w.busy_since_s is not None for w in gone))
            workers = stay


def test_costs_change_only_where_that_lasts():
    """A moment between two blocks costs no request; a new block on a busy pod neither."""
    costs, pods = Costs(), [Pod("p", "default", "Running")]
    assert not list(costs.changes(pods, {"p": 1.0}, 0.0))
    assert not list(costs.changes(pods, {}, 5.0))
    assert not list(costs.changes(pods, {"p": 1.0}, 6.0))
    ((pod, cost),) = costs.changes(pods, {"p": 30.0}, 6.0 + LASTS_S)
    assert (pod.name, cost) == ("p", 104)


def test_costs_that_somebody_else_manages_are_left_alone():
    """Karpenter sets the same annotation."""
    assert not list(Costs().changes([Pod("p", "default", "Running", managed=True)], {"p": 9.0}, 0.0, at_once=True))


# ----- what Kubernetes refuses ----------------------------------------------------------------------------------------


def test_what_fails_is_asked_for_with_growing_pauses_and_holds_up_nothing_else():
    """Up to a minute; each thing of each pool by itself, until it is done."""
    troubles, now, pauses = ApiErrors(), 100.0, []
    for _ in range(6):
        troubles.failed("costs", "gpu", ClusterError("no"), now)
        again = next(s for s in itertools.count() if troubles.due("costs", "gpu", now + s))
        pauses.append(again)
        assert troubles.due("scale", "gpu", now)
        assert troubles.due("costs", "cpu", now)
        now += again
    assert pauses == [5, 10, 20, 40, 60, 60]
    assert (troubles.why_not("costs", "gpu"), troubles.why_not("scale", "gpu")) == ("no", "")
    troubles.over("costs", "gpu")
    assert troubles.due("costs", "gpu", now)
    assert troubles.why_not("costs", "gpu") == ""


def test_an_api_server_that_asks_for_quiet_gets_it_from_all():
    """And for the longest time that it asked for."""
    troubles = ApiErrors()
    troubles.failed("scale", "gpu", ClusterError("busy"), 100.0, wait_s=30.0)
    troubles.failed("pods", "", ClusterError("busy"), 101.0, wait_s=1.0)
    assert not troubles.due("scale", "cpu", 129.0)
    assert troubles.due("scale", "cpu", 130.0)


def test_a_pool_tells_its_own_troubles_and_those_of_all():
    """Each once; who asked for a number hears only why that was not done."""
    troubles = ApiErrors()
    for what, pool, text in [("pods", "", "a"), ("scale", "gpu", "b"), ("costs", "gpu", "a"), ("scale", "cpu", "c")]:
        troubles.failed(what, pool, ClusterError(text), 0.0)
    assert troubles.of("gpu") == "a; b"
    assert (troubles.why_not("scale", "gpu"), troubles.why_not("costs", "cpu")) == ("b", "")


# ----- who is dead ----------------------------------------------------------------------------------------------------

NAME = "em-worker-default-abc"
ID = f"{NAME}-7-00000000"


def running(restarts=0, **fields):
    return [Pod(NAME, "default", "Running", restarts, **fields)]


def seen_twice(departures, restarts=0):
    for _ in range(2):
        assert not list(departures.look(running(restarts), [(ID, True)]))


def test_a_connected_worker_is_never_dead():
    """Whatever Kubernetes says."""
    departures = Departures()
    seen_twice(departures)
    assert not list(departures.look([], [(ID, True)]))


def test_a_lost_connection_alone_proves_nothing():
    """The pod is there, and its container is the same."""
    departures = Departures()
    seen_twice(departures)
    assert not list(departures.look(running(), [(ID, False)]))


def test_a_worker_of_the_new_container_is_not_taken_for_the_old_one():
    """It came after the restart, and is only cut off."""
    departures = Departures()
    assert not list(departures.look(running(0), []))
    assert not list(departures.look(running(1), [(ID, False)]))
    assert not list(departures.look(running(1), [(ID, False)]))
    ((worker, killed, reason),) = departures.look(running(2, out_of_memory=True), [(ID, False)])
    assert (worker, killed) == (ID, True)
    assert "ran out of memory" in reason


def test_workers_elsewhere_are_not_judged():
    """A laptop or a Slurm job has no pod."""
    departures = Departures()
    for _ in range(3):
        assert not list(departures.look(running(), [("laptop-12-abcdef01", False)]))
