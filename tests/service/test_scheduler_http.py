"""The HTTP side of a scheduler that leads: what it answers, to whom, and what a browser on another page cannot do."""

from __future__ import annotations

import asyncio
import re

import msgspec
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from scheduler_rig import Worker, pack, run_of, serving, settings_of, task, work_off
from tornado.httpclient import AsyncHTTPClient, HTTPRequest

from blockyard.wire.api import Explanation, Failures, Record, RunStatus
from blockyard.wire.messages import Outcome, Revoke, Want

NAMES = [
    "blocks",
    "blocks_completed_total",
    "block_duration_seconds",
    "block_wait_seconds",
    "progress_ratio",
    "eta_seconds",
    "eta_low_seconds",
    "eta_high_seconds",
    "voxels_completed_total",
    "blocks_runnable",
    "workers",
    "workers_desired",
    "leases_granted_total",
    "leases_expired_total",
    "stale_releases_total",
    "block_retries_total",
    "wasted_seconds_total",
    "scale_actions_total",
    "kubernetes_requests_total",
    "store_commit_seconds",
    "store_errors_total",
    "loop_lag_seconds",
    "connections",
    "handshakes_refused_total",
    "build_info",
]


class Http:
    """Asks a service's HTTP side."""

    def __init__(self, service):
        self.base = f"http://127.0.0.1:{service._http_port}"
        self.host = f"127.0.0.1:{service._http_port}"

    async def __call__(self, path, method="GET", body=None, **headers):
        headers = {key.replace("_", "-"): value for key, value in headers.items()}
        body = b"" if method == "POST" and body is None else body
        request = HTTPRequest(self.base + path, method=method, headers=headers, body=body)
        return await AsyncHTTPClient(force_instance=True).fetch(request, raise_error=False)

    async def post(self, path, value=None, **headers):
        body = None if value is None else msgspec.json.encode(value)
        return await self(path, "POST", body, **({"X_Blockyard": "1"} | headers))


def on_http(run, redis_url, test, **fields):
    async def main():
        async with serving(settings_of(run, redis_url, **fields)) as service:
            await test(service, Http(service))

    asyncio.run(main())


def error_of(answer):
    return msgspec.json.decode(answer.body)["error"]


# ----- what is answered ---------------------------------------------------------------------------------------------


def test_health_readiness_and_the_page_are_open(redis_url, run_name):
    """A probe and a browser need no token for them, and they tell nothing of the run."""

    async def test(_, http):
        assert (await http("/healthz")).code == 200
        ready = await http("/readyz")
        assert (ready.code, msgspec.json.decode(ready.body)) == (200, {"ready": True, "leads": True})
        page = await http("/")
        assert page.code == 200
        assert "default-src 'self'" in page.headers["Content-Security-Policy"]
        for file in re.findall(rb'(?:src|href)="([^"]+)"', page.body):
            assert (await http("/" + file.decode())).code == 200

    on_http(run_of(run_name), redis_url, test, token="geheim")


def test_not_ready_means_redis_or_the_lock_not_the_loop(redis_url, run_name):
    """A leader that cannot renew its lock is not ready, and stays healthy: a restart would not help."""

    async def test(service, http):
        service.leadership.claim._renewed_s = float("-inf")
        assert (await http("/readyz")).code == 503
        assert (await http("/healthz")).code == 200

    on_http(run_of(run_name), redis_url, test, lock_s=60.0)


def test_status_is_the_run(redis_url, run_name):
    """What the API gives is what the core counts."""

    async def test(service, http):
        async with Worker(service) as worker:
            await worker.join()
            await worker.released((await worker.take(1))[0])
            status = msgspec.json.decode((await http("/api/v1/status")).body, type=RunStatus)
        assert (status.run, status.state, status.tasks[0].done) == (run_name, "running", 1)
        assert [w.id for w in status.workers] == ["worker"]

    on_http(run_of(run_name), redis_url, test)


def test_failures_are_grouped_by_error(redis_url, run_name):
    """Errors that differ in numbers only are one group; a task can be picked."""
    run = run_of(run_name, task("left", 3, max_retries=0), task("right", 1, max_retries=0))

    async def test(service, http):
        async with Worker(service) as worker:
            await worker.join()
            for n in range(4):
                numbers, _ = await worker.take(1)
                await worker.released(numbers, Outcome.FAILED, message=f"voxel {n} is NaN")
            found = msgspec.json.decode((await http("/api/v1/failures")).body, type=Failures)
            assert (found.attempts, found.failed) == (4, 4)
            assert [(g.task, g.failed, g.blocks) for g in found.groups] == [("left", 3, [0, 1, 2]), ("right", 1, [0])]
            only = msgspec.json.decode((await http("/api/v1/failures?task=right")).body, type=Failures)
            assert [f.task for f in only.failures] == ["right"]
        assert "did you mean 'right'" in error_of(await http("/api/v1/failures?task=rihgt"))

    on_http(run, redis_url, test)


@pytest.mark.parametrize("most", [10, 1000])
def test_the_record_is_by_block_or_by_region(redis_url, run_name, most):
    """Where a task is too large to be recorded block by block, its regions have the sums."""

    async def test(service, http):
        async with Worker(service, slots=4) as worker:
            await worker.join()
            numbers = []
            while len(numbers) < 4:
                numbers += (await worker.take(4 - len(numbers)))[0]
            await worker.released(numbers, seconds=0.5)
        record = msgspec.msgpack.decode((await http("/api/v1/record")).body, type=Record)
        assert (len(record.tasks), len(record.regions)) == ((0, 1) if most == 10 else (1, 0))
        packed, kind = (record.regions[0].seconds, "<f8") if most == 10 else (record.tasks[0].seconds, "<f4")
        assert np.frombuffer(packed, kind).sum() == pytest.approx(2.0, rel=1e-3)

    on_http(run_of(run_name, task(blocks=100)), redis_url, test, history_blocks=most)


def test_explain_says_why_by_index_and_by_block(redis_url, run_name):
    """A block is named by its index or its id; its failed attempts come along."""
    run = run_of(run_name, task("up", 2), task("down", 2, requires=("up",)))

    async def test(service, http):
        async with Worker(service) as worker:
            await worker.join()
            numbers, _ = await worker.take(1)
            await worker.released(numbers, Outcome.FAILED)
        by_index = msgspec.json.decode((await http("/api/v1/explain?task=down&index=0")).body)
        by_block = msgspec.json.decode((await http("/api/v1/explain?task=down&block=0")).body)
        assert by_index == by_block
        assert msgspec.convert(by_index, Explanation).state == "pending"
        up = msgspec.json.decode((await http("/api/v1/explain?task=up&index=0")).body)
        assert [f["message"] for f in up["failures"]] == ["broken"]

    on_http(run, redis_url, test)


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("", "say which task"),
        ("task=wrok&block=1", "did you mean 'work'"),
        ("task=work&block=10", "outside 0 .. 9"),
        ("task=work&block=x", "block 'x' is no block"),
        ("task=work&index=1,2", "each of its 1 axes"),
        ("task=work&index=-1", "outside the grid"),
        ("task=work", "index=3,4,5"),
    ],
)
def test_a_question_about_no_block_gets_a_sentence(redis_url, run_name, query, sentence):
    """Bad input is answered with 400 and what would do."""

    async def test(_, http):
        answer = await http("/api/v1/explain?" + query)
        assert answer.code == 400
        assert sentence in error_of(answer)

    on_http(run_of(run_name), redis_url, test)


def test_what_is_not_there_is_said_as_json(redis_url, run_name):
    """A wrong path or method is a sentence too."""

    async def test(_, http):
        assert "/api/v1/" in error_of(await http("/api/v2/status"))
        assert (await http("/api/v1/pause")).code == 405
        assert (await http("/page/../settings.py")).code in (403, 404)

    on_http(run_of(run_name), redis_url, test)


# ----- what steers --------------------------------------------------------------------------------------------------


def test_a_paused_run_grants_nothing_until_it_is_resumed(redis_url, run_name):
    """Pause and resume are answered when they are safe in Redis."""

    async def test(service, http):
        async with Worker(service) as worker:
            await worker.join()
            answer = await http.post("/api/v1/pause")
            assert msgspec.json.decode(answer.body) == {"state": "paused"}
            worker.release([])
            taking = asyncio.ensure_future(worker.take(1))
            await service.turns.turned()
            assert service.status().tasks[0].leased == 0
            assert msgspec.json.decode((await http.post("/api/v1/resume")).body) == {"state": "running"}
            assert (await taking)[1] == [0]
            assert msgspec.json.decode((await http.post("/api/v1/cancel")).body) == {"state": "cancelled"}

    on_http(run_of(run_name), redis_url, test)


def test_a_retry_brings_failed_blocks_and_their_orphans_back(redis_url, run_name):
    """After a retry a failed run goes on and can be done; the old failures are no longer final."""
    run = run_of(run_name, task("up", 2, max_retries=0), task("down", 2, requires=("up",)))

    async def test(service, http):
        async with Worker(service) as worker:
            await worker.join()
            assert (await work_off(worker, Outcome.FAILED))[1] == "failed"
            answer = await http.post("/api/v1/retry", {"task": "up"})
            assert msgspec.json.decode(answer.body) == {"state": "running", "blocks": 4}
            assert (await work_off(worker))[1] == "done"
        found = msgspec.json.decode((await http("/api/v1/failures")).body, type=Failures)
        assert (found.attempts, found.failed) == (2, 0)

    on_http(run, redis_url, test)


def test_a_retry_may_name_an_error(redis_url, run_name):
    """Only blocks that failed like that, whatever the numbers in its message are."""
    run = run_of(run_name, task(blocks=3, max_retries=0))

    async def test(service, http):
        async with Worker(service, slots=3) as worker:
            await worker.join()
            for message in ("voxel 1 is NaN", "voxel 2 is NaN", "the disk is full"):
                await worker.released((await worker.take(1))[0], Outcome.FAILED, message=message)
            error = {"kind": "ValueError", "message": "voxel 7 is NaN"}
            answer = await http.post("/api/v1/retry", {"task": "work", "error": error})
            assert msgspec.json.decode(answer.body) == {"state": "running", "blocks": 2}
            groups = msgspec.json.decode((await http("/api/v1/failures?whole=0")).body, type=Failures)
            assert [(group.message, group.failed) for group in groups.groups] == [
                ("the disk is full", 1),
                ("voxel 1 is NaN", 0),
            ]
            assert groups.failures == []
            error["kind"] = "KeyError"
            answer = await http.post("/api/v1/retry", {"task": "work", "error": error})
            assert msgspec.json.decode(answer.body)["blocks"] == 0

    on_http(run, redis_url, test)


@pytest.mark.parametrize(
    ("retries", "again", "kept"),
    [
        (0, [Outcome.FAILED], {"no such array": (1, 1)}),
        (1, [Outcome.FAILED, Outcome.FAILED], {"no such array": (1, 2)}),
        (1, [Outcome.FATAL], {"no such array": (1, 1), "the disk is full": (0, 1)}),
        (2, [Outcome.FAILED, Outcome.FATAL], {"no such array": (1, 2), "the disk is full": (0, 1)}),
    ],
)
def test_a_block_that_fails_again_after_a_retry_is_failed_in_one_group(redis_url, run_name, retries, again, kept):
    """By its last error, also where an attempt of the time before the retry had a higher number."""
    run = run_of(run_name, task(blocks=1, max_retries=retries))

    async def test(service, http):
        async with Worker(service) as worker:
            await worker.join()
            for _ in range(retries + 1):
                await worker.released((await worker.take(1))[0], Outcome.FAILED, message="the disk is full")
            await http.post("/api/v1/retry", {})
            for outcome in again:
                await worker.released((await worker.take(1))[0], outcome, message="no such array")
        found = msgspec.json.decode((await http("/api/v1/failures")).body, type=Failures)
        assert {group.message: (group.failed, group.attempts) for group in found.groups} == kept
        assert found.failed == 1

    on_http(run, redis_url, test)


def test_a_rerun_runs_done_blocks_again_and_what_depends_on_them(redis_url, run_name):
    """Leases on them end first, and their releases are stale; what was done elsewhere stays done."""
    run = run_of(run_name, task("up", 4), task("down", 4, requires=("up",)))

    async def test(service, http):
        async with Worker(service) as worker:
            await worker.join()
            assert (await work_off(worker))[1] == "done"
            worker.say(Want(0))
            roi = {"offset": [1], "shape": [2]}
            answer = await http.post("/api/v1/rerun", {"task": "up", "roi": roi})
            assert msgspec.json.decode(answer.body) == {"state": "running", "blocks": 4}
            numbers, blocks = await worker.take(1)
            assert blocks[0] in (1, 2)
            answer = await http.post("/api/v1/rerun", {"task": "up", "roi": {"offset": [1], "shape": [2]}})
            assert (await worker.hear_a(Revoke)).numbers == pack(numbers)
            assert (await worker.released(numbers)).stale == len(numbers)
            ran, state = await work_off(worker)
            assert (sorted(ran), state) == ([1, 1, 2, 2], "done")
            answer = await http.post("/api/v1/rerun", {})
            assert answer.code == 400

    on_http(run, redis_url, test)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"taks": "work"}, "unknown field `taks`"),
        ({"task": "wrok"}, "did you mean 'work'"),
        ({"error": {"kind": "KeyError", "message": ""}}, "say of which task the blocks are that failed with KeyError"),
        ({"error": {"kind": "KeyError"}}, "missing required field `message`"),
        ({"roi": {"offset": [0, 0], "shape": [1, 1]}}, "task 'work' has 1 axes"),
    ],
)
def test_a_retry_of_nothing_known_is_refused(redis_url, run_name, body, sentence):
    """Bad input to a change changes nothing."""

    async def test(_, http):
        answer = await http.post("/api/v1/retry", body)
        assert answer.code == 400
        assert sentence in error_of(answer)

    on_http(run_of(run_name), redis_url, test)


# ----- who may ask --------------------------------------------------------------------------------------------------


READ = ("status", "events", "tasks", "map?task=work", "blocks", "failures", "explain?block=1", "record", "log")


@pytest.mark.parametrize("body", [b'{"task": "\xff"}', b"\xff", b"[" * 9999, b'{"task": ' * 999])
def test_a_body_that_is_no_json_is_refused(redis_url, run_name, body):
    """Text in another encoding, say: a sentence, and no traceback in the log."""

    async def test(_, http):
        for path in ("retry", "rerun", "scale"):
            answer = await http(f"/api/v1/{path}", "POST", body, X_Blockyard="1")
            assert (answer.code, b"the body is no" in answer.body) == (400, True)

    on_http(run_of(run_name), redis_url, test)


CHANGE = ("pause", "resume", "cancel", "retry", "rerun", "scale")


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_all_that_tells_of_the_run_or_changes_it_needs_the_token(redis_url, run_name, host):
    """On loopback too, which everybody reaches who is logged in; metrics are for Prometheus, unless told not to."""

    async def test(service, http):
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "geheim"}, {"Cookie": "token=geheim"}):
            refused = [await http(f"/api/v1/{path}", **headers) for path in READ]
            refused += [await http.post(f"/api/v1/{path}", {}, **headers) for path in CHANGE]
            assert {answer.code for answer in refused} == {401}
            assert all("Authorization: Bearer TOKEN" in error_of(answer) for answer in refused)
            assert {answer.headers["WWW-Authenticate"] for answer in refused} == {"Bearer"}
        assert service.status().state == "running"
        assert (await http("/api/v1/status", Authorization="Bearer geheim")).code == 200
        assert (await http.post("/api/v1/pause", Authorization="Bearer geheim")).code == 200
        assert (await http("/metrics")).code == 200

    on_http(run_of(run_name), redis_url, test, token="geheim", http_host=host)


def test_metrics_may_be_for_who_has_the_token(redis_url, run_name):
    """As in a run on a machine with other users; Prometheus sends a token from a file."""

    async def test(_, http):
        assert (await http("/metrics")).code == 401
        assert b"blockyard_blocks" in (await http("/metrics", Authorization="Bearer geheim")).body

    on_http(run_of(run_name), redis_url, test, token="geheim", metrics_token=True)


def test_another_page_cannot_change_the_run(redis_url, run_name):
    """Without a token, a browser on another site can neither set our header nor hide where it comes from."""

    async def test(service, http):
        assert (await http("/api/v1/cancel", "POST")).code == 403
        assert (await http("/api/v1/cancel", "POST", b"{}", Content_Type="text/plain")).code == 403
        foreign = await http.post("/api/v1/cancel", Origin="https://evil.example")
        assert (foreign.code, "evil.example" in error_of(foreign)) == (403, True)
        assert service.status().state == "running"
        assert (await http.post("/api/v1/pause", Origin=http.base)).code == 200
        assert (await http("/api/v1/pause", "POST", b"{}", Content_Type="application/json")).code == 200

    on_http(run_of(run_name), redis_url, test)


def test_a_foreign_name_for_loopback_is_not_answered(redis_url, run_name):
    """DNS rebinding: a page whose name resolves to this machine sends its own name as Host."""

    async def test(_, http):
        for path in ("/api/v1/status", "/", "/page/page.js", "/metrics", "/healthz", "/readyz"):
            assert (await http(path, Host="evil.example")).code == 403
            assert (await http(path, Host="[")).code == 403  # no address at all
            assert (await http(path, Host="localhost:1234")).code == 200
        assert (await http("/nothing", Host="evil.example")).code == 403
        assert (await http.post("/api/v1/pause", Origin="http://[")).code == 403

    on_http(run_of(run_name), redis_url, test)


# ----- metrics ------------------------------------------------------------------------------------------------------


def families(text):
    return {family.name: family for family in text_string_to_metric_families(text)}


def test_every_metric_is_there_from_the_start(redis_url, run_name):
    """A rule or dashboard never meets a missing name, label or zero."""

    async def test(_, http):
        answer = await http("/metrics")
        text = answer.body.decode()
        assert answer.headers["Content-Type"].startswith("text/plain")
        names = {sample.name for family in families(text).values() for sample in family.samples}
        for name in NAMES:
            full = "blockyard_" + name
            assert full in names or full + "_bucket" in names, name
        for name, family in families(text).items():
            assert name.startswith("blockyard_")
            assert family.documentation.endswith(".")
            assert not any({"block", "worker", "pod"} & set(sample.labels) for sample in family.samples)
        assert (await http("/metrics", Accept="application/openmetrics-text")).body.endswith(b"# EOF\n")

    on_http(run_of(run_name), redis_url, test)


def test_metrics_follow_the_run(redis_url, run_name):
    """Gauges are the core's, counters what was said and done."""

    async def test(service, http):
        async with Worker(service, slots=2) as worker, Worker(service, "idle") as idle:
            await worker.join()
            await idle.join()
            numbers, _ = await worker.take(3)
            await worker.released(numbers[:1], seconds=0.5)
            await worker.released(numbers[1:2], Outcome.FAILED, seconds=2.0)
            answer = await http("/metrics")
        samples = {
            (s.name.removeprefix("blockyard_"), *sorted(s.labels.values())): s.value
            for family in families(answer.body.decode()).values()
            for s in family.samples
        }
        granted = len(numbers)
        assert samples["blocks", "done", "work"] == 1
        assert samples["blocks", "leased", "work"] == granted - 2
        assert samples["blocks_completed_total", "success", "work"] == 1
        assert samples["block_retries_total", "error", "work"] == 1
        assert samples["wasted_seconds_total", "failed"] == 2.0
        assert samples["leases_granted_total",] == granted
        assert samples["progress_ratio", "work"] == 0.1
        assert samples["block_duration_seconds_sum", "work"] == 0.5
        assert samples["workers", "busy", "default"] == int(granted > 2)
        assert samples["connections",] == 2

    on_http(run_of(run_name), redis_url, test)


def test_a_counter_never_goes_down(redis_url, run_name):
    """A retry takes failed blocks back; what was counted stays counted."""

    async def test(service, http):
        async with Worker(service) as worker:
            await worker.join()
            await work_off(worker, Outcome.FATAL)
            await http.post("/api/v1/retry")
            text = (await http("/metrics")).body.decode()
        assert 'blockyard_blocks_completed_total{outcome="failed",task="work"} 2.0' in text
        assert 'blockyard_blocks{state="failed",task="work"} 0.0' in text

    on_http(run_of(run_name, task(blocks=2)), redis_url, test)
