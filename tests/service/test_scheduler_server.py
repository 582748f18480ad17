"""The block server over real sockets and a real Redis: who is let in, what is said when, and what a peer cannot do."""

from __future__ import annotations

import asyncio
import logging
import socket

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scheduler_rig import FaultyRedis, Worker, pack, run_of, serving, settings_of, task, until, work_off

from blockyard.core.events import CancelRequested
from blockyard.wire.frames import LIMIT_BYTES, encode
from blockyard.wire.messages import (
    Ack,
    Bye,
    Gone,
    Grants,
    Heartbeat,
    HeartbeatAck,
    Hello,
    Outcome,
    Refused,
    Release,
    Revoke,
    RunOver,
    TaskOver,
    Want,
    Welcome,
)
from blockyard_scheduler import tornado_server as server_module


def on_scheduler(run, redis_url, test, **fields):
    """Run a test with a scheduler that leads a run."""

    async def main():
        async with serving(settings_of(run, redis_url, **fields)) as service:
            await test(service)

    asyncio.run(main())


# ----- a run --------------------------------------------------------------------------------------------------------


def test_a_worker_runs_every_block_once(redis_url, run_name):
    """Blocks are granted, released and acknowledged until the run is over, and each is counted once."""

    async def test(service):
        async with Worker(service, slots=2) as worker:
            welcome = await worker.join()
            assert (welcome.run, welcome.epoch) == (run_name, 1)
            assert welcome.pipeline == service.pipeline
            ran, state = await work_off(worker)
        assert sorted(ran) == list(range(10))
        assert state == "done"
        assert service.status().tasks[0].done == 10

    on_scheduler(run_of(run_name), redis_url, test)


def test_blocks_stream_from_task_to_task(redis_url, run_name):
    """A block of a downstream task is pushed as soon as its upstream block is released, to a worker that waits."""
    run = run_of(run_name, task("up", 2), task("down", 2, requires=("up",)))

    async def test(service):
        async with Worker(service, "first") as first, Worker(service, "second") as second:
            await first.join()
            await second.join()
            first_numbers, _ = await first.take(1)
            second_numbers, _ = await second.take(1)
            second.say(Want(1))
            await first.released(first_numbers)
            grants = await second.hear_a(Grants)
            assert [grant.task for grant in grants.grants] == ["down"]
            await second.released(second_numbers)

    on_scheduler(run, redis_url, test)


def test_failed_attempts_are_retried_and_then_kept_with_their_error(redis_url, run_name):
    """A block that fails is tried max_retries times again; then the run has failed, and says why."""

    async def test(service):
        async with Worker(service) as worker:
            await worker.join()
            ran, state = await work_off(worker, Outcome.FAILED)
            assert ran == [0, 0, 0]
            assert state == "failed"
        failures = await service.failures()
        assert [(f.attempt, f.final, f.kind) for f in failures] == [
            (1, False, "ValueError"),
            (2, False, "ValueError"),
            (3, True, "ValueError"),
        ]

    on_scheduler(run_of(run_name, task(blocks=1)), redis_url, test)


def test_a_worker_that_comes_late_is_told_what_is_over(redis_url, run_name):
    """Announcements are for those who come after them too."""

    async def test(service):
        async with Worker(service, "first") as first:
            await first.join()
            await work_off(first)
        async with Worker(service, "late") as late:
            await late.join()
            assert await late.hear_a(TaskOver) == TaskOver("work")
            assert await late.hear_a(RunOver) == RunOver("done")

    on_scheduler(run_of(run_name), redis_url, test)


# ----- journal before speech ----------------------------------------------------------------------------------------


def test_nothing_is_said_before_it_is_safe(redis_url, run_name, tmp_path):
    """While Redis does not answer, no lease is granted and no release acknowledged; then everything goes on."""

    async def main():
        async with FaultyRedis(redis_url, tmp_path) as faulty:
            settings = settings_of(run_of(run_name), faulty.url)
            async with serving(settings) as service, Worker(service) as worker:
                await worker.join()
                numbers, _ = await worker.take(1)
                faulty.passing.clear()
                commands = faulty.commands
                worker.release(numbers)
                worker.say(Want(1))
                hearing = asyncio.ensure_future(worker.hear())
                await until(lambda: faulty.commands > commands and service.turns.turns._arrived == [])
                assert not hearing.done()
                faulty.passing.set()
                assert await hearing == Ack(1)
                assert (await worker.hear_a(Grants)).grants

    asyncio.run(main())


def test_what_arrives_during_a_commit_is_one_turn(redis_url, run_name, tmp_path):
    """A slow Redis makes turns larger: all that arrived while it wrote is one record."""

    async def main():
        async with (
            FaultyRedis(redis_url, tmp_path) as faulty,
            serving(settings_of(run_of(run_name, task(blocks=100)), faulty.url)) as service,
        ):
            workers = [Worker(service, f"w{i}") for i in range(10)]
            for worker in workers:
                await worker.connect()
                await worker.join()
            numbers = [(await worker.take(1))[0] for worker in workers]
            faulty.passing.clear()
            before = service.turns.core.seq
            workers[0].release(numbers[0])
            await until(lambda: service.turns.core.seq == before + 1)
            for worker, its in zip(workers[1:], numbers[1:], strict=True):
                worker.release(its)
            await until(lambda: len(service.turns.turns._arrived) == 9)
            faulty.passing.set()
            for worker in workers:
                await worker.hear_a(Ack)
                worker.writer.close()
            assert service.turns.core.seq == before + 2

    asyncio.run(main())


def test_a_scheduler_that_may_be_deposed_echoes_no_heartbeat(redis_url, run_name):
    """A worker counts its lease from the echo, so it comes only while the lock is surely held."""

    async def test(service):
        async with Worker(service) as worker:
            await worker.join()
            worker.say(Heartbeat(41.5))
            assert await worker.hear() == HeartbeatAck(41.5, service.leadership.epoch)
            service.leadership.claim._renewed_s = float("-inf")
            worker.say(Heartbeat(42.5), Want(1))
            assert isinstance(await worker.hear(), Grants)  # Redis stored that one: it may be said

    on_scheduler(run_of(run_name), redis_url, test, lock_s=60.0)


# ----- coming back --------------------------------------------------------------------------------------------------


def test_a_worker_that_reconnects_keeps_its_blocks(redis_url, run_name):
    """Held leases stay the worker's over a broken connection, and can be released on the new one."""

    async def test(service):
        worker = Worker(service)
        await worker.connect()
        await worker.join()
        numbers, blocks = await worker.take(3)
        worker.writer.close()
        await until(lambda: not service.status().workers[0].connected)
        again = Worker(service, holds=pack(numbers))
        async with again:
            welcome = await again.join()
            assert welcome.revoked == b""
            assert await again.released(numbers) == Ack(1)
        assert service.status().tasks[0].done == len(blocks)

    on_scheduler(run_of(run_name), redis_url, test)


def test_a_release_that_is_sent_again_is_acknowledged_and_counted_once(redis_url, run_name):
    """The answer was lost with the connection: the worker repeats, the run does not."""

    async def test(service):
        async with Worker(service) as worker:
            await worker.join()
            numbers, _ = await worker.take(2)
            assert await worker.released(numbers) == Ack(1)
        again = Worker(service, holds=pack(numbers))
        async with again:
            await again.join()
            assert await again.released(numbers) == Ack(1)
        assert service.status().tasks[0].done == len(numbers)

    on_scheduler(run_of(run_name), redis_url, test)


def test_leases_of_nobody_are_revoked(redis_url, run_name):
    """A hello that holds what is not its own learns that in the welcome."""

    async def test(service):
        async with Worker(service, holds=pack([77, 78])) as worker:
            assert (await worker.join()).revoked == pack([77, 78])

    on_scheduler(run_of(run_name), redis_url, test)


def test_a_second_connection_of_a_worker_replaces_the_first(redis_url, run_name):
    """A half-open connection is nobody's; what is decided goes to the newest one."""

    async def test(service):
        async with Worker(service) as old, Worker(service) as new:
            await old.join()
            await new.join()
            await old.closed()
            assert (await new.take(1))[1] == [0]
            assert [w.connected for w in service.status().workers] == [True]

    on_scheduler(run_of(run_name), redis_url, test)


def test_what_was_decided_for_an_old_connection_is_not_said_on_the_new(redis_url, run_name, tmp_path):
    """Leases in flight when the worker comes back without them are ended, not handed to it before its welcome."""

    async def main():
        async with FaultyRedis(redis_url, tmp_path) as faulty:
            settings = settings_of(run_of(run_name, task(blocks=1)), faulty.url)
            async with serving(settings) as service, Worker(service) as old, Worker(service) as new:
                await old.join()
                faulty.passing.clear()
                commands = faulty.commands
                old.say(Want(1))
                await until(lambda: faulty.commands > commands and service.status().tasks[0].leased == 1)
                new.say(new.hello)
                await until(lambda: len(service.turns.turns._arrived) == 1)
                faulty.passing.set()
                assert isinstance(await new.hear(), Welcome)
                assert (await new.take(1))[1] == [0]

    asyncio.run(main())


# ----- leaving ------------------------------------------------------------------------------------------------------


def test_a_worker_that_says_goodbye_frees_what_it_holds(redis_url, run_name):
    """Bye is proof: the blocks go to others at once, and cost no attempt."""

    async def test(service):
        async with Worker(service, "leaver") as leaver, Worker(service, "heir") as heir:
            await leaver.join()
            await heir.join()
            _, blocks = await leaver.take(1)
            leaver.say(Bye("drained"))
            await leaver.closed()
            assert (await heir.take(1))[1] == blocks
            assert [w.id for w in service.status().workers] == ["heir"]

    on_scheduler(run_of(run_name, task(blocks=1)), redis_url, test)


def test_an_acknowledgement_comes_before_the_end_of_the_connection(redis_url, run_name):
    """A worker that releases and says goodbye in one breath still hears that its work is safe."""

    async def test(service):
        async with Worker(service) as worker:
            await worker.join()
            numbers, _ = await worker.take(1)
            worker.release(numbers)
            worker.say(Bye())
            assert await worker.hear() == Ack(1)
            await worker.closed()

    on_scheduler(run_of(run_name), redis_url, test)


def test_an_agent_proves_that_others_are_gone_by_their_prefix(redis_url, run_name):
    """A name that ends with '/' stands for all workers below it, connected or not."""

    async def test(service):
        async with Worker(service, "agent") as agent, Worker(service, "agent/1/a") as one:
            await agent.join()
            await one.join()
            await one.take(1)
            agent.say(Gone("agent/1/", killed=True, reason="exit status 9"))
            await one.closed()
            await until(lambda: [w.id for w in service.status().workers] == ["agent"])
            assert service.status().tasks[0].leased == 0

    on_scheduler(run_of(run_name, task(blocks=1)), redis_url, test)


def test_cancel_revokes_the_leases(redis_url, run_name):
    """A cancelled run tells its workers to stop, and that it is over."""

    async def test(service):
        async with Worker(service) as worker:
            await worker.join()
            numbers, _ = await worker.take(1)
            await service.turns.ask(CancelRequested())
            assert await worker.hear_a(Revoke) == Revoke(pack(numbers))
            assert await worker.hear_a(RunOver) == RunOver("cancelled")

    on_scheduler(run_of(run_name), redis_url, test)


# ----- who is let in ------------------------------------------------------------------------------------------------


def refusal(run, redis_url, hello, **fields):
    """What a peer hears that begins with this message, and the reasons that were counted."""
    heard = {}

    async def test(service):
        async with Worker(service) as peer:
            peer.say(hello)
            heard["refused"] = await peer.hear_a(Refused)
            await peer.closed()
        heard["counted"] = +service.meter.refused
        assert service.status().workers == []

    on_scheduler(run, redis_url, test, **fields)
    return heard["refused"], dict(heard["counted"])


@pytest.mark.parametrize("token", ["", "wrong", "geheimX", "geheim\0"])
def test_a_wrong_token_is_refused(redis_url, run_name, token):
    """Whoever does not know the token learns nothing but that."""
    refused, counted = refusal(run_of(run_name), redis_url, Hello(worker="w", token=token), token="geheim")
    assert refused.code == "token"
    assert "--token" in refused.reason
    assert not refused.again
    assert counted == {"token": 1}


def test_the_right_token_is_let_in(redis_url, run_name):
    """The token of the scheduler opens the gate."""

    async def test(service):
        async with Worker(service, token="geheim") as worker:
            assert isinstance(await worker.join(), Welcome)

    on_scheduler(run_of(run_name), redis_url, test, token="geheim")


def test_another_protocol_is_refused(redis_url, run_name):
    """Versions that do not understand each other say so, with both numbers."""
    refused, counted = refusal(run_of(run_name), redis_url, Hello(worker="w", protocol=9))
    assert "protocol 9, this scheduler 1" in refused.reason
    assert counted == {"protocol": 1}


@pytest.mark.parametrize(
    ("hello", "sentence"),
    [
        (Hello(worker="w", pool="defualt"), "did you mean 'default'"),
        (Hello(worker="w", task="wrok"), "did you mean 'work'"),
        (Hello(worker="w", slots=-1), "has -1 slots"),
        (Hello(worker=""), "name of a worker"),
        (Hello(worker="a\nb"), "name of a worker"),
        (Hello(worker="w", holds=b"123"), "no multiple of 8"),
    ],
)
def test_a_worker_that_fits_no_task_is_told_what_does(redis_url, run_name, hello, sentence):
    """A pool or task that the run does not have is refused with the nearest known one."""
    refused, counted = refusal(run_of(run_name), redis_url, hello)
    assert sentence in refused.reason
    assert counted == {"pool": 1}


def test_a_first_message_that_is_no_hello_is_refused(redis_url, run_name):
    """Nobody speaks before saying who it is."""
    refused, counted = refusal(run_of(run_name), redis_url, Want(3))
    assert "must be a hello" in refused.reason
    assert counted == {"protocol": 1}


def test_a_peer_that_says_nothing_is_refused(redis_url, run_name, monkeypatch):
    """A connection without a hello ends after a while."""
    monkeypatch.setattr(server_module, "HELLO_S", 0.05)

    async def test(service):
        async with Worker(service) as peer:
            assert "no hello within" in (await peer.hear_a(Refused)).reason
            await peer.closed()
        assert service.meter.refused["timeout"] == 1

    on_scheduler(run_of(run_name), redis_url, test)


# ----- what a peer cannot do ----------------------------------------------------------------------------------------

HTTP = b"GET / HTTP/1.1\r\nHost: scheduler\r\n\r\n"
TOO_LONG = (2**31).to_bytes(4, "big")


@pytest.mark.parametrize("garbage", [HTTP, TOO_LONG, b"\0\0\0\1\xc1", b"\0\0\0\0", b"\0\0\0\5hello", b"\xff" * 1000])
def test_garbage_before_hello_is_refused_and_counted(redis_url, run_name, garbage):
    """Something that does not speak the protocol is told off, and others go on."""

    async def test(service):
        async with Worker(service, "good") as good:
            await good.join()
            async with Worker(service) as bad:
                bad.writer.write(garbage)
                assert isinstance(await bad.hear(), Refused)
                await bad.closed()
            assert (await good.take(1))[1] == [0]
        assert service.meter.refused["malformed"] == 1

    on_scheduler(run_of(run_name), redis_url, test)


def release(**fields):
    fields = {"seq": 1, "numbers": pack([1]), "outcomes": b"\0", "seconds": b""} | fields
    return encode(Release(**fields))


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ((LIMIT_BYTES + 1).to_bytes(4, "big"), "over the limit"),
        (b"\0\0\0\1\xc1", "not a message"),
        (encode(Hello(worker="again")), "second hello"),
        (encode(Want(-1)), "wants -1"),
        (release(numbers=b"1234567"), "no multiple of 8"),
        (release(outcomes=b"\0\0"), "1 numbers and 2 outcomes"),
        (release(outcomes=b"\7"), "outcome 7"),
        (release(seq=0), "sequence 0"),
        (release(seconds=b"12"), "not 4 for each"),
        (release(seconds=np.array([np.nan], "<f4").tobytes()), "negative or no numbers"),
        (release(seconds=np.array([-1], "<f4").tobytes()), "negative or no numbers"),
        (encode(Heartbeat(1.0, ((1, float("inf")),))), "no numbers"),
    ],
)
def test_what_cannot_be_meant_ends_the_session_and_changes_nothing(redis_url, run_name, caplog, said, complaint):
    """A peer that misbehaves loses its connection, with a sentence in the log; its leases wait for its return."""

    async def test(service):
        async with Worker(service, "bad") as bad, Worker(service, "good") as good:
            await bad.join()
            await good.join()
            await bad.take(1)
            bad.writer.write(said)
            await bad.closed()
            await good.take(1)
            status = service.status()
            assert (status.tasks[0].leased, status.tasks[0].done) == (2, 0)

    with caplog.at_level(logging.WARNING, "blockyard_scheduler"):
        on_scheduler(run_of(run_name), redis_url, test)
    assert complaint in caplog.text


def test_releases_of_leases_that_never_were_are_stale(redis_url, run_name):
    """Any numbers may be claimed; what is not the worker's is refused, counted, and said."""

    async def test(service):
        async with Worker(service) as worker:
            await worker.join()
            numbers, _ = await worker.take(1)
            strange = [-5, 0, 2**62, 99, *numbers, *numbers]
            assert await worker.released(strange) == Ack(1, stale=5)
        status = service.status()
        assert (status.tasks[0].done, status.stale_releases) == (1, 5)

    on_scheduler(run_of(run_name), redis_url, test)


MESSAGES = st.one_of(
    st.builds(Want, st.integers(-(2**63), 2**63 - 1)),
    st.builds(
        Release,
        seq=st.integers(-(2**63), 2**63 - 1),
        numbers=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3).map(pack) | st.binary(max_size=17),
        outcomes=st.binary(max_size=3),
        seconds=st.binary(max_size=13),
    ),
    st.builds(Heartbeat, st.floats()),
    st.builds(Gone, st.text(max_size=3), st.booleans(), st.text(max_size=3)),
    st.builds(Bye),
    st.builds(
        Hello,
        worker=st.text(max_size=3),
        pool=st.sampled_from(["default", "x"]),
        slots=st.integers(-1, 2**40),
        holds=st.binary(max_size=16),
    ),
).map(encode)


def test_no_peer_can_stop_the_scheduler(redis_url, run_name):
    """Whatever comes over a connection, whole messages or bytes, the others are served (P7)."""

    async def scenario(service, parts):
        async with Worker(service, "fuzz") as fuzz:
            fuzz.say(Hello(worker="fuzz"))
            for part in parts:
                fuzz.writer.write(part)
            fuzz.writer.write_eof()
            await fuzz.closed()
        async with Worker(service, "good") as good:
            await good.join()
            good.say(Heartbeat(1.0))
            await good.hear_a(HeartbeatAck)
            assert not service.life.done()

    with asyncio.Runner() as runner:
        context = serving(settings_of(run_of(run_name, task(blocks=10**6)), redis_url))
        service = runner.run(context.__aenter__())

        @given(st.lists(MESSAGES | st.binary(max_size=20), max_size=6))
        def fuzz(parts):
            runner.run(scenario(service, parts))

        fuzz()
        runner.run(context.__aexit__(None, None, None))


def test_a_worker_that_does_not_read_is_dropped(redis_url, run_name, monkeypatch):
    """What waits for a slow reader is bounded; the rest of the run does not notice."""
    monkeypatch.setattr(server_module, "UNSENT_BYTES", 2**16)

    async def test(service):
        async with Worker(service, "slow") as slow, Worker(service, "good") as good:
            await slow.join()
            await good.join()
            slow.writer.transport.pause_reading()
            slow.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            for session in service._blocks._sessions.values():  # small buffers of the system, so that ours fills soon
                session._stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            while any(w.id == "slow" and w.connected for w in service.status().workers):
                slow.say(*[Heartbeat(float(i)) for i in range(2000)])
                good.say(Heartbeat(1.0))
                await good.hear_a(HeartbeatAck)

    on_scheduler(run_of(run_name), redis_url, test)


def test_a_flood_is_heard_at_the_pace_of_the_turns(redis_url, run_name, tmp_path):
    """While Redis writes, only so much is taken from one peer: the rest stays in its own socket."""

    async def main():
        async with (
            FaultyRedis(redis_url, tmp_path) as faulty,
            serving(settings_of(run_of(run_name), faulty.url, lock_s=60.0)) as service,
            Worker(service) as flood,
        ):
            await flood.join()
            faulty.passing.clear()
            flood.say(Want(1))
            await until(lambda: service.status().tasks[0].leased == 1)
            frame = encode(Want(1))
            flood.writer.write(frame * (2**21 // len(frame)))
            await until(lambda: len(service.turns._asked) == 1)
            assert len(service.turns.turns._arrived) <= 2 * server_module.READ_BYTES // len(frame)
            faulty.passing.set()
            flood.say(Heartbeat(7.0))
            assert (await flood.hear_a(HeartbeatAck)).sent_s == 7.0

    asyncio.run(main())


def test_silent_connections_are_closed(redis_url, run_name):
    """A half-open connection does not stay for ever."""

    async def test(service):
        service._blocks._silent_s = 0.0
        async with Worker(service) as worker:
            await worker.join()
            await worker.closed()

    on_scheduler(run_of(run_name), redis_url, test)


def test_more_connections_than_files_are_closed_at_once(redis_url, run_name):
    """The scheduler keeps files for Redis and HTTP; who comes too late may come again."""

    async def test(service):
        service._blocks.most = 1
        async with Worker(service, "one") as one, Worker(service, "two") as two:
            await one.join()
            await two.closed()
            assert (await one.take(1))[1] == [0]

    on_scheduler(run_of(run_name), redis_url, test)
