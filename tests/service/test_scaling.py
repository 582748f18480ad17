"""Workers scaled through the Kubernetes API: the official client, over HTTP, against a server that also fails."""

from __future__ import annotations

import asyncio
import json
import math

import msgspec
import pytest
from kubernetes_api import deployment, pod, warning
from redis.asyncio import Redis
from scaling_rig import NAME, pool_of, scaled
from scheduler_rig import Worker, run_of, serving, settings_of, task, until
from tornado.httpclient import AsyncHTTPClient

from blockyard.core.events import CancelRequested
from blockyard.wire.messages import Outcome
from blockyard_scheduler.scaling import autoscaler as autoscaler_module
from blockyard_scheduler.scaling.cluster import COST
from blockyard_scheduler.scaling.decide import Note
from blockyard_scheduler.store.keys import Keys
from blockyard_scheduler.store.redis import Uncertain


async def post_scale(service, **body):
    """Ask over HTTP; give the status and the answer."""
    answer = await AsyncHTTPClient().fetch(
        f"http://127.0.0.1:{service._http_port}/api/v1/scale",
        method="POST",
        body=json.dumps(body),
        headers={"Content-Type": "application/json"},
        raise_error=False,
    )
    return answer.code, json.loads(answer.body)


def run(test, *arguments, **fields):
    async def main():
        async with scaled(*arguments, **fields) as (api, service):
            await test(api, service)

    asyncio.run(main())


def test_a_pool_grows_to_what_can_run_and_goes_to_zero_at_the_end(redis_url, run_name, monkeypatch):
    """As many pods as blocks could run, by slots and up to the limit; none when the run is over."""

    async def test(api, service):
        await until(lambda: api.replicas(NAME) == 8)
        assert (pool_of(service).desired, pool_of(service).decides) == (8, "auto")
        async with Worker(service, slots=40) as worker:
            await worker.join()
            numbers, _ = await worker.take(40)
            await worker.released(numbers)
        await until(lambda: api.replicas(NAME) == 0)
        await until(lambda: pool_of(service).replicas == 0)
        assert service.scale_actions == {("default", "up"): 1, ("default", "down"): 1}

    run(test, redis_url, run_name, monkeypatch)


def test_a_pool_at_zero_grows_again(redis_url, run_name, monkeypatch):
    """A Scale of no pods has no `replicas` that a patch could replace."""

    async def test(api, service):
        await until(lambda: api.replicas(NAME) == 8)

    run(test, redis_url, run_name, monkeypatch, replicas=0)


def test_a_person_who_scales_while_we_decide_wins(redis_url, run_name, monkeypatch):
    """Our patch holds only for the number it was decided on."""

    async def test(api, service):
        await until(lambda: pool_of(service).replicas == 8)
        api.meanwhile = lambda: api.scale(NAME, 7)
        await service.scaler.ask("default", None)
        async with Worker(service, slots=40) as worker:
            await worker.join()
            numbers, _ = await worker.take(40)
            await worker.released(numbers)
            await until(lambda: api.meanwhile is None)
            await until(lambda: service.kubernetes_requests["patch", "422"] == 1)

    run(test, redis_url, run_name, monkeypatch)


def test_what_was_scaled_and_why_is_an_event(redis_url, run_name, monkeypatch):
    """`kubectl describe deployment` shows it; where the Role forbids it, the status says so, and it is scaled."""

    async def test(api, service):
        await until(lambda: len(api.told) == 1)
        await service.scaler.ask("default", 3)
        api.denied.add(("create", "events"))
        assert await service.scaler.ask("default", 2) == ""
        assert 'create resource "events"' in pool_of(service).error
        assert api.told == [
            (NAME, "Scaled", "pool 'default': 8 workers asked for, 1 before; 40 blocks run or could run"),
            (NAME, "Scaled", "pool 'default': 3 workers asked for, 8 before; a person asked for them"),
        ]

    run(test, redis_url, run_name, monkeypatch)


def test_few_blocks_need_few_pods(redis_url, run_name, monkeypatch):
    """Three blocks on two slots a pod: two pods."""

    async def test(api, service):
        await until(lambda: api.replicas(NAME) == 2)

    run(test, redis_url, run_name, monkeypatch, blocks=3)


def test_a_person_wins_until_automation_is_asked_for(redis_url, run_name, monkeypatch):
    """Whoever changes replicas keeps them, also over a restart of the scheduler; `--auto` ends that."""

    async def main():
        async with scaled(redis_url, run_name, monkeypatch) as (api, service):
            await until(lambda: api.replicas(NAME) == 8)
            await until(lambda: pool_of(service).replicas == 8)
            api.scale(NAME, 3)
            await until(lambda: pool_of(service).decides == "person")
        async with scaled(redis_url, run_name, monkeypatch, found=api.deployments[NAME]) as (api, service):
            await until(lambda: len(api.asked) > 20)
            assert api.replicas(NAME) == 3
            assert pool_of(service).decides == "person"
            await service.scaler.ask("default", None)
            await until(lambda: api.replicas(NAME) == 8)
            assert pool_of(service).decides == "auto"

    asyncio.run(main())


def test_what_was_answered_is_kept_although_the_scheduler_dies(redis_url, run_name, monkeypatch):
    """`POST /api/v1/scale` answers when it is noted: a successor does what could not be done."""

    async def main():
        denied = {("patch", "deployments/scale")}
        async with scaled(redis_url, run_name, monkeypatch, denied=denied) as (api, service):
            code, answer = await post_scale(service, pool="default", workers=5)
            assert code == 200
            assert "deployments/scale" in answer["error"]
            api.denied.clear()
            service.scaler._api_errors.quiet_until_s = math.inf  # it does nothing any more
        async with scaled(redis_url, run_name, monkeypatch, found=api.deployments[NAME]) as (api, service):
            await until(lambda: api.replicas(NAME) == 5)
            await until(lambda: pool_of(service).decides == "person")

    asyncio.run(main())


def test_a_note_that_cannot_be_read_is_as_none(redis_url, run_name, monkeypatch, caplog):
    """Another version may have kept something else: it begins anew."""

    async def main():
        async with scaled(redis_url, run_name, monkeypatch, blocks=2) as (api, service):
            await until(lambda: service.scaler._kept.get("default") is not None)
            await service._store.write_note(service.leadership.identity, "default", msgspec.msgpack.encode([7, None]))
            service.scaler._api_errors.quiet_until_s = math.inf
        async with scaled(redis_url, run_name, monkeypatch, blocks=2, found=api.deployments[NAME]) as (api, service):
            await until(lambda: pool_of(service).replicas == 1)
            assert pool_of(service).decides == "auto"

    asyncio.run(main())
    assert "what is kept of pool 'default' can't be read" in caplog.text


def test_a_first_look_is_noted(redis_url, run_name, monkeypatch):
    """One pod was there and one was right, so nothing was set: a number that a successor finds is a person's."""

    async def main():
        async with scaled(redis_url, run_name, monkeypatch, blocks=2) as (api, service):
            await until(lambda: service.scaler._kept.get("default") is not None)
        found = api.deployments[NAME]
        found["spec"]["replicas"] = 4
        async with scaled(redis_url, run_name, monkeypatch, blocks=2, found=found) as (api, service):
            await until(lambda: pool_of(service).decides == "person")
            assert api.replicas(NAME) == 4

    asyncio.run(main())


def test_scaling_by_hand_through_the_api(redis_url, run_name, monkeypatch):
    """`POST /api/v1/scale` sets a number and keeps it; a pool that there is not is named with those that are."""

    async def test(api, service):
        await until(lambda: api.replicas(NAME) == 8)
        assert (await post_scale(service, pool="default", workers=5))[0] == 200
        await until(lambda: api.replicas(NAME) == 5)
        await until(lambda: pool_of(service).decides == "person")
        code, answer = await post_scale(service, pool="defualt", workers=5)
        assert code == 400
        assert "default" in answer["error"]
        assert (await post_scale(service, pool="default", workers=-1))[0] == 400

    run(test, redis_url, run_name, monkeypatch)


def test_a_run_whose_workers_are_not_scaled_says_so(redis_url, run_name):
    """A sentence that says what to do instead."""

    async def main():
        async with serving(settings_of(run_of(run_name, task(blocks=2)), redis_url)) as service:
            code, answer = await post_scale(service, pool="default", workers=2)
            assert code == 400
            assert "not scaled by its scheduler" in answer["error"]

    asyncio.run(main())


@pytest.mark.parametrize("code", [409, 429, 500, 503])
def test_passing_errors_are_shown_and_outlived(redis_url, run_name, monkeypatch, code):
    """Conflicts, throttling and broken answers: in the metrics, then it works."""

    async def test(api, service):
        await until(lambda: api.replicas(NAME) == 8)
        api.fail(code, times=2, Retry_After="0")
        await service.scaler.ask("default", 6)
        await until(lambda: api.replicas(NAME) == 6)
        await until(lambda: pool_of(service).error == "")
        assert service.kubernetes_requests["patch", str(code)] == 2

    run(test, redis_url, run_name, monkeypatch)


def test_a_rule_that_is_missing_is_named_and_the_run_goes_on(redis_url, run_name, monkeypatch, caplog):
    """Before it is needed as YAML to paste, in the status when it is; blocks run all the while."""

    async def test(api, service):
        async with Worker(service, slots=4) as worker:
            await until(lambda: "403" in pool_of(service).error)
            assert "deployments/scale" in pool_of(service).error
            await worker.join()
            numbers, _ = await worker.take(4)
            await worker.released(numbers)
            await until(lambda: service.status().state == "done")
            api.denied.clear()
            await until(lambda: api.replicas(NAME) == 0)
            await until(lambda: pool_of(service).error == "")

    denied = {("patch", "deployments/scale")}
    run(test, redis_url, run_name, monkeypatch, blocks=4, denied=denied)
    said = "\n".join(record.getMessage() for record in caplog.records)
    assert "- apiGroups: [apps]\n  resources: [deployments/scale]" in said
    assert f"resourceNames: [{NAME}]\n  verbs: [patch]" in said


def test_an_expired_token_is_read_again(redis_url, run_name, monkeypatch):
    """A 401 makes the client read its credentials anew, as they are renewed in a pod."""

    async def test(api, service):
        await until(lambda: api.replicas(NAME) == 8)
        api.fail(401, method="GET", times=3)
        await until(lambda: service.kubernetes_requests["list", "401"] + service.kubernetes_requests["get", "401"] == 3)
        await service.scaler.ask("default", 2)
        await until(lambda: api.replicas(NAME) == 2)

    run(test, redis_url, run_name, monkeypatch)


def test_a_deployment_that_disappears_and_comes_back(redis_url, run_name, monkeypatch):
    """404 is shown, and the pool is scaled again when it is there again."""

    async def test(api, service):
        await until(lambda: api.replicas(NAME) == 8)
        gone = api.deployments.pop(NAME)
        await until(lambda: "404" in pool_of(service).error)
        assert (pool_of(service).replicas, pool_of(service).ready) == (0, 0)
        gone["spec"]["replicas"] = 8
        api.deployments[NAME] = gone
        await until(lambda: pool_of(service).error == "")

    run(test, redis_url, run_name, monkeypatch)


def test_a_deployment_that_is_made_again_is_scaled_again(redis_url, run_name, monkeypatch):
    """It has one pod by default, which nobody decided: a person's number is set again, and else what is of use."""

    async def test(api, service):
        await until(lambda: api.replicas(NAME) == 8)
        await until(lambda: pool_of(service).replicas == 8)
        api.deployments[NAME] = deployment(NAME)
        await until(lambda: api.replicas(NAME) == 8)
        assert pool_of(service).decides == "auto"
        await until(lambda: pool_of(service).replicas == 8)
        api.scale(NAME, 3)
        await until(lambda: pool_of(service).decides == "person")
        api.deployments[NAME] = deployment(NAME)
        await until(lambda: api.replicas(NAME) == 3)
        assert pool_of(service).decides == "person"

    run(test, redis_url, run_name, monkeypatch)


def test_an_api_server_that_wants_to_be_left_alone_is(redis_url, run_name, monkeypatch):
    """`Retry-After` holds for all that is asked, whatever it was said to."""

    async def test(api, service):
        await until(lambda: api.replicas(NAME) == 8)
        api.fail(429, method="GET", Retry_After="3600")
        await until(lambda: "429" in pool_of(service).error)
        asked = len(api.asked)
        service.scaler.look_now()
        await asyncio.sleep(0.5)
        assert len(api.asked) == asked

    run(test, redis_url, run_name, monkeypatch)


@pytest.mark.parametrize("rule", [("patch", "pods"), ("list", "pods")])
def test_a_pool_is_scaled_although_a_lesser_rule_is_missing(redis_url, run_name, monkeypatch, rule):
    """Without deletion costs or a look at pods it still grows and shrinks, to zero at the end; the status says why."""

    async def test(api, service):
        name = f"{NAME}-abc-0"
        api.pods[name] = pod(name)
        await until(lambda: api.replicas(NAME) == 8)
        async with Worker(service, f"{name}-7-00000000", slots=40) as worker:
            await worker.join()
            numbers, _ = await worker.take(40)
            assert await service.scaler.ask("default", 4) == ""
            assert api.replicas(NAME) == 4
            await until(lambda: f'{rule[0]} resource "pods"' in pool_of(service).error)
            await worker.released(numbers)
        await until(lambda: api.replicas(NAME) == 0)

    run(test, redis_url, run_name, monkeypatch, denied={rule})


def test_a_pool_goes_to_zero_at_the_end_although_that_fails_at_first(redis_url, run_name, monkeypatch):
    """Workers of a run that is over would be started again for ever."""

    async def test(api, service):
        await until(lambda: pool_of(service).replicas == 8)
        api.fail(500, times=2)
        async with Worker(service, slots=40) as worker:
            await worker.join()
            numbers, _ = await worker.take(40)
            await worker.released(numbers)
        await until(lambda: api.replicas(NAME) == 0)
        assert service.kubernetes_requests["patch", "500"] == 2
        await service.scaler.ask("default", 2)  # and a person may still want some
        await until(lambda: pool_of(service).decides == "person")
        asked = len(api.asked)
        await until(lambda: len(api.asked) > asked + 6)
        assert api.replicas(NAME) == 2

    run(test, redis_url, run_name, monkeypatch)


def test_a_scheduler_rests_when_its_pools_are_at_zero_and_not_before(redis_url, run_name, monkeypatch):
    """Also where the API server wants to be left alone as the run ends: a Job would end, and its workers stay."""

    async def test(api, service):
        await until(lambda: api.replicas(NAME) == 8)
        async with Worker(service, slots=40) as worker:
            await worker.join()
            numbers, _ = await worker.take(40)
            api.fail(429, method="GET", Retry_After="1")
            await until(lambda: "429" in pool_of(service).error)
            await worker.released(numbers)
        await service.scaler.rested()
        assert (service.status().state, api.replicas(NAME)) == ("done", 0)

    run(test, redis_url, run_name, monkeypatch)


def test_a_run_that_ends_while_a_pool_is_scaled_is_looked_at_again(redis_url, run_name, monkeypatch):
    """What was decided for a run that goes on is no rest."""

    async def test(api, service):
        await until(lambda: pool_of(service).replicas == 8)
        api.meanwhile = lambda: service.turns.tell(CancelRequested())
        api.deployments[NAME] = deployment(NAME)  # made again, it has one pod: the next look lets it grow
        await service.scaler.rested()
        assert (service.status().state, api.replicas(NAME)) == ("cancelled", 0)

    run(test, redis_url, run_name, monkeypatch)


def test_what_a_person_set_is_kept_by_a_redis_that_forgot(redis_url, run_name, monkeypatch):
    """The leader writes the run again, and the number of workers with it."""

    async def test(api, service):
        await until(lambda: pool_of(service).replicas == 8)
        await service.scaler.ask("default", 3)
        keys = Keys.of(run_name)
        async with Redis.from_url(redis_url) as redis:
            await redis.delete(keys.scaling, keys.head, keys.log, keys.spec, keys.schema)
            await until(lambda: service.scaler._notes.rewrites > 0)
            await until(lambda: service.scaler._rewrites and service.scaler._kept["default"] is not None)
            note = msgspec.msgpack.decode(await redis.hget(keys.scaling, "default"), type=Note)
        assert (note.person, note.next or note.known[-1]) == (True, 3)

    run(test, redis_url, run_name, monkeypatch)


def test_a_server_that_does_not_answer_holds_up_nobody(redis_url, run_name, monkeypatch):
    """The client waits in a thread of its own: blocks are leased meanwhile; who asks for a number is told."""

    async def test(api, service):
        api.held.clear()
        async with Worker(service, slots=4) as worker:
            await worker.join()
            numbers, _ = await worker.take(4)
            await worker.released(numbers)
            assert service.status().tasks[0].done == len(numbers)
        monkeypatch.setattr(autoscaler_module, "ASK_S", 0.2)
        code, answer = await post_scale(service, pool="default", workers=3)
        assert (code, answer["error"]) == (200, "the Kubernetes API is slow to answer")
        async with service.scaler._deciding:  # as it is while a pool is looked at
            code, answer = await post_scale(service, pool="default", workers=5)
        assert code == 400
        assert "could not be scaled, and nothing was changed" in answer["error"]
        assert service.scaler._scalers["default"].note.next == 3
        api.held.set()
        await until(lambda: api.replicas(NAME) == 3)

    run(test, redis_url, run_name, monkeypatch)


def test_a_number_that_was_asked_for_is_looked_at_without_waiting(redis_url, run_name, monkeypatch):
    """`status` right after `scale` shows what was asked for, not what was seen up to 5 s before."""

    async def test(api, service):
        await until(lambda: pool_of(service).replicas == 8)
        monkeypatch.setattr(autoscaler_module, "LOOK_EVERY_S", 3600.0)
        service.scaler.look_now()
        looks = len(api.asked)
        await until(lambda: len(api.asked) >= looks + 2)
        await service.scaler.ask("default", 3)
        await until(lambda: pool_of(service).replicas == 3)
        looks = len(api.asked)
        await asyncio.sleep(0.3)
        assert len(api.asked) == looks, "and otherwise in its time"

    run(test, redis_url, run_name, monkeypatch)


@pytest.mark.parametrize("slow", [True, False])
def test_what_redis_has_not_kept_is_told_and_done_when_it_has(redis_url, run_name, monkeypatch, slow):
    """It was asked for, so it is done by this scheduler; but whoever takes over before knows nothing of it."""

    async def test(api, service):
        await until(lambda: pool_of(service).replicas == 8)
        monkeypatch.setattr(autoscaler_module, "ASK_S", 0.2)
        real, answers = service.scaler._notes.write, asyncio.Event()

        async def write(*note):
            if slow:
                await answers.wait()
            if not answers.is_set():
                raise Uncertain("no connection")
            await real(*note)

        service.scaler._notes.write = write
        code, answer = await post_scale(service, pool="default", workers=3)
        assert (code, api.replicas(NAME)) == (200, 8)
        assert "Redis has not kept this yet" in answer["error"]
        assert "another that takes over may not" in answer["error"]
        answers.set()
        await until(lambda: api.replicas(NAME) == 3)
        await until(lambda: pool_of(service).error == "")

    run(test, redis_url, run_name, monkeypatch)


def test_a_fault_of_ours_does_not_end_the_run(redis_url, run_name, monkeypatch, caplog):
    """It is logged with its traceback, shown, and tried again; blocks are leased all the while."""

    async def test(api, service):
        await until(lambda: api.replicas(NAME) == 8)
        faults = iter([RuntimeError("odd pod")])
        real = service._cluster.pods

        async def pods():
            for fault in faults:
                raise fault
            return await real()

        service._cluster.pods = pods
        await until(lambda: "odd pod" in caplog.text)
        await service.scaler.ask("default", 3)
        await until(lambda: api.replicas(NAME) == 3)
        await until(lambda: pool_of(service).error == "")
        assert not service.life.done()

    run(test, redis_url, run_name, monkeypatch)


def test_why_pods_are_missing_is_in_the_status(redis_url, run_name, monkeypatch):
    """No node, an image that can't be had, a quota: in Kubernetes' own words, counted."""

    async def test(api, service):
        unscheduled = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no GPU"}]
        for n in range(2):
            api.pods[f"p{n}"] = pod(f"p{n}", phase="Pending", conditions=unscheduled)
        waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
        container = {
            "name": "worker", "state": waiting, "restartCount": 0, "ready": False, "image": "x", "imageID": "",
        }  # fmt: skip
        api.pods["p2"] = pod("p2", phase="Pending", containerStatuses=[container])
        quota = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: pods"}
        api.deployments[NAME]["status"]["conditions"] = [quota]
        await until(lambda: pool_of(service).pending == 3)
        assert pool_of(service).reasons == [
            "exceeded quota: pods", "2 pods: Unschedulable: no GPU", "ImagePullBackOff: no such image",
        ]  # fmt: skip

    run(test, redis_url, run_name, monkeypatch)


def test_a_pod_that_does_not_say_why_it_waits_has_the_last_warning(redis_url, run_name, monkeypatch):
    """A volume that can't be mounted is in no condition of the pod, only in an Event; one that runs needs none."""

    async def test(api, service):
        for name, phase in (("p0", "Pending"), ("p1", "Pending"), ("p2", "Running")):
            api.pods[name] = pod(name, phase=phase)
        api.events = [
            warning("p0", "FailedMount", "no such volume", 9), warning("p0", "Older", "and over", 5),
            warning("p2", "Unhealthy", "over", 9),
        ]  # fmt: skip
        await until(lambda: pool_of(service).reasons == ["FailedMount: no such volume"])
        api.denied.add(("list", "events"))
        await until(lambda: 'list resource "events"' in pool_of(service).error)
        assert await service.scaler.ask("default", 3) == ""
        assert api.replicas(NAME) == 3

    run(test, redis_url, run_name, monkeypatch)


def test_busy_pods_cost_more_to_delete_when_a_pool_shrinks(redis_url, run_name, monkeypatch):
    """Just before it: idle pods have no cost, busy ones have one; a cost that Karpenter manages is left alone."""

    async def test(api, service):
        names = [f"{NAME}-abc-{n}" for n in range(3)]
        for name in names:
            api.pods[name] = pod(name)
        api.pods[names[2]]["metadata"]["annotations"] = {"karpenter.sh/managed-deletion-cost": "true"}
        async with (
            Worker(service, f"{names[0]}-7-00000000", slots=2) as busy,
            Worker(service, f"{names[2]}-7-00000000", slots=2) as managed,
        ):
            for worker in (busy, managed):
                await worker.join()
                await worker.take(1)
            await service.scaler.ask("default", 1)
            await until(lambda: api.replicas(NAME) == 1)
            annotations = [api.pods[name]["metadata"].get("annotations", {}) for name in names]
            assert annotations[0] == {COST: "100"}
            assert annotations[1] == {}
            assert COST not in annotations[2]

    run(test, redis_url, run_name, monkeypatch, replicas=8)


@pytest.mark.parametrize("how", ["gone", "restarted", "out of memory"])
def test_a_pod_that_kubernetes_reports_dead_gives_its_blocks_back_at_once(redis_url, run_name, monkeypatch, how):
    """No lease has to run out; out of memory counts against the block that ran, with the reason in its error."""

    async def test(api, service):
        name = f"{NAME}-abc-0"
        api.pods[name] = pod(name)
        async with Worker(service, f"{name}-7-00000000") as worker:
            await worker.join()
            await worker.take(1)
            looks = len(api.asked)
            await until(lambda: len(api.asked) > looks + 12)  # it was seen more than once
        await until(lambda: not service.status().workers[0].connected)
        if how == "gone":
            del api.pods[name]
        else:
            reason = "OOMKilled" if how == "out of memory" else "Error"
            last = {"terminated": {"reason": reason, "exitCode": 137}}
            container = {
                "name": "worker", "restartCount": 1, "lastState": last, "ready": True, "image": "x", "imageID": "",
            }  # fmt: skip
            api.pods[name]["status"]["containerStatuses"] = [container]
        await until(lambda: not service.status().workers)
        outcome = Outcome.KILLED if how == "out of memory" else Outcome.LOST
        assert service.outcomes["work", outcome] == 1
        if how == "out of memory":
            (failure,) = await service.failures_of("work", 0)
            assert "ran out of memory" in failure.message

    run(test, redis_url, run_name, monkeypatch, blocks=1)
