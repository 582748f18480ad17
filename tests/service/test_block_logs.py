"""`blockyard logs` of a run on Kubernetes: what a block wrote, found in the logs of pods over HTTP."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
from kubernetes_api import pod
from scaling_rig import NAME, scaled
from scheduler_rig import Worker, until

from blockyard.cli import main
from blockyard.wire.messages import Outcome
from blockyard_scheduler.scaling import block_log, cluster
from blockyard_scheduler.scaling.cluster import Pod

PODS = [f"{NAME}-abc-{n}" for n in range(3)]


def line(block, message, task="work"):
    return json.dumps({"task": task, "block": block, "message": message}) + "\n"


def restarted(name):
    container = {"name": "worker", "restartCount": 1, "ready": True, "image": "x", "imageID": ""}
    return pod(name, containerStatuses=[container])


async def asked(service, block, *words):
    """Run the command in a thread of its own; give its exit status."""
    arguments = ["logs", "work", str(block), f"127.0.0.1:{service._http_port}", *words]
    return await asyncio.get_running_loop().run_in_executor(None, main, arguments)


def run(test, *arguments, **fields):
    async def life():
        async with (
            scaled(*arguments, blocks=4, **fields) as (api, service),
            Worker(service, f"{PODS[0]}-7-00000000") as worker,
        ):
            await worker.join()
            numbers, (block,) = await worker.take(1)
            await worker.released(numbers)
            await test(api, service, worker, block)

    asyncio.run(life())


def test_the_lines_of_the_pod_that_ran_it(redis_url, run_name, monkeypatch, capsys):
    """Those that name task and block, and no other ones; other pods are not read."""

    async def test(api, service, _, block):
        for name in PODS[:2]:
            api.pods[name] = pod(name)
        api.logs[PODS[0]] = "printed\n" + line(block, "mine") + line(block + 1, "other") + line(block, "x", "another")
        assert await asked(service, block) == 0
        assert capsys.readouterr().out == f"--- pod {PODS[0]}, 1 of 4 lines\n" + line(block, "mine")
        assert not any(PODS[1] in path for _, path in api.asked)

    run(test, redis_url, run_name, monkeypatch)


def test_all_attempts_are_found(redis_url, run_name, monkeypatch, capsys):
    """Also in the container before the last one, and in the pods of workers that are known no more."""

    async def test(api, service, worker, _):
        numbers, (block,) = await worker.take(1)
        await worker.released(numbers, Outcome.FAILED)
        async with Worker(service, f"{PODS[1]}-7-00000000") as second:
            await second.join()
            while (got := await second.take(1))[1] != [block]:
                await second.released(got[0])
            await second.released(got[0])
        api.pods = {PODS[0]: restarted(PODS[0]), PODS[1]: pod(PODS[1])}
        api.logs = {PODS[0]: line(9, "no"), (PODS[0], "before"): line(block, "first"), PODS[1]: line(block, "second")}
        assert await asked(service, block) == 0
        told = capsys.readouterr().out
        assert '"first"' in told
        assert '"second"' in told

    run(test, redis_url, run_name, monkeypatch)


def test_a_block_whose_worker_is_not_known_is_looked_for_in_all_pods_of_its_pool(
    redis_url, run_name, monkeypatch, capsys
):
    """And in no others; what was found where is said."""

    async def test(api, service, _, block):
        api.pods = {name: pod(name, pool="default" if n else "gpu") for n, name in enumerate(PODS)}
        api.logs = {PODS[0]: line(block, "of another pool"), PODS[1]: line(9, "no"), PODS[2]: line(block, "found")}
        api.logs.pop(PODS[0])
        assert await asked(service, block) == 0
        told = capsys.readouterr().out
        assert f"--- pod {PODS[2]}, 1 of 1 lines" in told
        assert PODS[1] not in told

    run(test, redis_url, run_name, monkeypatch)


def test_what_cannot_be_found_is_said(redis_url, run_name, monkeypatch, capsys):
    """Exit status 1; where it was looked for, why not, and the command for all that a pod wrote."""

    async def test(api, service, _, block):
        api.pods = {PODS[1]: pod(PODS[1])}
        api.logs = {PODS[1]: line(9, "no") * 2}
        assert await asked(service, block) == 1
        told = capsys.readouterr().out
        assert f'--- pod {PODS[0]}: Kubernetes does not have it (404: pods "{PODS[0]}" not found)' in told
        assert f"--- pod {PODS[1]}: none of 2 lines is about this block\n" in told
        assert f"kubectl logs -n lab {PODS[1]}" in told
        api.pods.clear()
        assert await asked(service, block) == 1
        assert "No log of a pod that may have run it can be read" in capsys.readouterr().out
        assert await asked(service, 3) == 2
        assert "nothing has run it" in capsys.readouterr().err

    run(test, redis_url, run_name, monkeypatch)


def test_a_missing_rule_is_named(redis_url, run_name, monkeypatch, capsys, caplog):
    """In the answer, and before it is needed, as YAML to paste."""

    async def test(_, service, __, block):
        assert await asked(service, block) == 1
        assert 'cannot get resource "pods/log"' in capsys.readouterr().out
        await until(lambda: "- apiGroups: ['']\n  resources: [pods/log]\n  verbs: [get]" in caplog.text)

    run(test, redis_url, run_name, monkeypatch, denied={("get", "pods/log")})


def test_a_long_log_costs_no_more_than_it_may(redis_url, run_name, monkeypatch, capsys):
    """So much is read of each, and so much is kept; that there is more is said."""

    async def test(api, service, _, block):
        api.pods = {PODS[0]: pod(PODS[0])}
        api.logs = {PODS[0]: line(9, "no") * 1000 + line(block, "late")}
        monkeypatch.setattr(cluster, "LOG_BYTES", 10_000)
        assert await asked(service, block) == 1
        assert "lines is about this block, and there are more" in capsys.readouterr().out
        api.logs = {PODS[0]: line(block, "early") * 100_000}
        monkeypatch.setattr(cluster, "LOG_BYTES", 2**26)
        monkeypatch.setattr(cluster, "KEPT_BYTES", 5_000)
        assert await asked(service, block) == 0
        assert "(cut: there are more)" in capsys.readouterr().out

    run(test, redis_url, run_name, monkeypatch)


@pytest.mark.parametrize("n", [1, 7, 64])
def test_lines_are_whole_whatever_pieces_they_come_in(n):
    """A line may be cut anywhere, and the last one may have no end."""
    text = (line(3, "a") + "x\n" + line(3, "b") + line(13, "c") + line(3, "ä")).encode()[:-1]
    pieces = [text[at : at + n] for at in range(0, len(text), n)]
    log = cluster._lines_of(pieces, block_log.is_about("work", 3), time.monotonic() + 100)
    assert log == cluster.Log(5, line(3, "a") + line(3, "b") + line(3, "ä"), cut=False)


def test_when_time_is_over_the_rest_is_left(monkeypatch):
    """It is counted: who asks learns that not all was read."""

    class Slow:
        async def log(self, pod, wanted, until_s, *, previous):
            return cluster.Log(1, "", cut=True)

    monkeypatch.setattr(block_log, "MOST_PODS", 3)
    pods = [Pod(f"p{n}", "default", "Running") for n in range(8)]
    logs = block_log.BlockLogs(Slow(), "lab")
    found = asyncio.run(logs.find(lambda _: True, [], pods, 1))
    assert ([log.pod for log in found.pods], found.left) == (["p0", "p1", "p2"], 5)
    monkeypatch.setattr(block_log, "WITHIN_S", -1.0)
    assert asyncio.run(logs.find(lambda _: True, [], pods, 1)).left == 8
