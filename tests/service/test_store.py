"""The run in Redis, against a real server: what is written once, what is refused, what an uncertain answer means."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import dataclass

import pytest
from redis.asyncio import Redis
from scheduler_rig import FaultyRedis, run_of, until

from blockyard.core.events import CommitRecord, FailureNote, Page
from blockyard.local.redis import EmbeddedRedis
from blockyard.record.pages import Piece
from blockyard.spec.errors import StoreError
from blockyard.wire.messages import BlockError
from blockyard_scheduler.store import redis as store_module
from blockyard_scheduler.store.keys import Keys
from blockyard_scheduler.store.redis import Forgot, Held, Refused, Store, Uncertain, place


def on_store(url, name, test, **fields):
    """Run a test with a store that its nonce 'a' leads, as identity '1:a'."""

    async def main():
        store = Store(url, name, **fields)
        try:
            epoch = await store.take_lock("a", "here:1", 60.0)
            await test(store, f"{epoch}:a")
        finally:
            await store.close()

    asyncio.run(main())


def failure(block=7, attempt=1, final=False, **fields):
    error = BlockError(5, **{"kind": "ValueError", "message": "bad voxel", "traceback": "line 1"} | fields)
    return FailureNote("work", block, attempt, final, error)


@dataclass(frozen=True)
class Contents:
    seq: int
    pages: list[Page]
    records: list[tuple[int, bytes]]


async def contents_of(store):
    """All that Redis holds of the journal."""
    pages = [page async for piece in store.pages() for page in piece]
    records = [record async for piece in store.records() for record in piece]
    return Contents(await store.last_seq(), pages, records)


def test_what_was_committed_is_loaded(redis_url, run_name):
    """A commit's record, pages and errors are all there for the next leader."""

    async def test(store, me):
        await store.write_spec(me, run_of(run_name), fresh=False)
        await store.commit(me, CommitRecord(1, b"first", (failure(),), (Page("head", 1, b"page"),)))
        await store.commit(me, CommitRecord(2, b"\0second\xff"))
        journal = await contents_of(store)
        assert journal.seq == 2
        assert journal.records == [(1, b"first"), (2, b"\0second\xff")]
        assert journal.pages == [Page("head", 1, b"page")]
        assert await store.failures() == [failure()]
        assert await store.read_spec() == run_of(run_name)

    on_store(redis_url, run_name, test)


def test_a_long_journal_is_loaded_in_pieces(redis_url, run_name, monkeypatch):
    """Loading reads any number of records and pages, in order, without one large answer."""
    monkeypatch.setattr(store_module, "LOAD_RECORDS", 3)
    monkeypatch.setattr(store_module, "LOAD_PAGES", 2)

    async def test(store, me):
        for seq in range(1, 11):
            await store.commit(me, CommitRecord(seq, b"%d" % seq, (), (Page(f"0:0:{seq}", seq, b"x" * 100),)))
        journal = await contents_of(store)
        assert journal.records == [(seq, b"%d" % seq) for seq in range(1, 11)]
        assert sorted(page.seq for page in journal.pages) == list(range(1, 11))

    on_store(redis_url, run_name, test)


def test_the_same_commit_again_is_accepted_and_written_once(redis_url, run_name):
    """A commit is known by leader and sequence: repeating it changes nothing."""

    async def test(store, me):
        for _ in range(3):
            await store.commit(me, CommitRecord(1, b"first"))
        assert (await contents_of(store)).records == [(1, b"first")]

    on_store(redis_url, run_name, test)


def test_records_below_the_snapshot_are_dropped(redis_url, run_name):
    """The log is as long as the snapshot needs it, in the same step that writes the pages."""

    async def test(store, me):
        await store.write_spec(me, run_of(run_name), fresh=False)
        for seq in range(1, 6):
            await store.commit(me, CommitRecord(seq, b"r", drop_below=4 if seq == 5 else 0))
        assert [seq for seq, _ in (await contents_of(store)).records] == [4, 5]

    on_store(redis_url, run_name, test)


def test_a_deposed_leader_writes_nothing(redis_url, run_name):
    """After another took the lock, commits and renewals of the old leader are refused with a sentence."""

    async def test(store, me):
        await store.commit(me, CommitRecord(1, b"mine"))
        await store.free_lock(me)
        epoch = await store.take_lock("b", "there:2", 60.0)
        with pytest.raises(Refused, match=rf"another scheduler leads run '{run_name}' now \(epoch {epoch}\)"):
            await store.commit(me, CommitRecord(2, b"late"))
        with pytest.raises(Refused):
            await store.renew_lock(me, 60.0)
        with pytest.raises(Refused):
            await store.write_spec(me, run_of(run_name), fresh=True)
        assert (await contents_of(store)).records == [(1, b"mine")]

    on_store(redis_url, run_name, test)


def test_a_sequence_that_does_not_follow_is_refused(redis_url, run_name):
    """A record is only written behind the one before it: a Redis that lost records is noticed."""

    async def test(store, me):
        await store.commit(me, CommitRecord(1, b"first"))
        with pytest.raises(Forgot, match="has 1 as the last record"):
            await store.commit(me, CommitRecord(3, b"third"))
        assert (await contents_of(store)).seq == 1

    on_store(redis_url, run_name, test)


def test_an_emptied_redis_is_noticed(redis_url, run_name):
    """A Redis without the leader it had has forgotten the run; that is said, not taken for another leader."""

    async def test(store, me):
        await store.commit(me, CommitRecord(1, b"first"))
        keys = Keys.of(run_name)
        async with Redis.from_url(redis_url) as redis:
            await redis.delete(keys.head, keys.log, keys.lock)
        with pytest.raises(Forgot, match="emptied"):
            await store.commit(me, CommitRecord(2, b"second"))

    on_store(redis_url, run_name, test)


def test_only_one_leads_and_each_leader_has_a_new_epoch(redis_url, run_name):
    """The lock has one holder; others learn its address; asking again with the same nonce is harmless."""

    async def test(store, me):
        assert await store.take_lock("b", "there:2", 60.0) == Held("here:1")
        assert await store.take_lock("a", "here:1", 60.0) == int(me.split(":")[0])
        await store.free_lock(me)
        assert await store.take_lock("b", "there:2", 60.0) == int(me.split(":")[0]) + 1

    on_store(redis_url, run_name, test)


@pytest.mark.parametrize("steps", range(12))
def test_who_waits_for_redis_can_be_ended_at_any_step(redis_url, run_name, steps):
    """The client loses cancellations while it connects; a scheduler that ends would wait for ever for its own tasks."""

    async def main():
        store = Store(redis_url, run_name)
        epoch = await store.take_lock("a", "here:1", 60.0)
        waiting = [asyncio.ensure_future(_renewing(store, f"{epoch}:a")) for _ in range(4)]
        for _ in range(steps):
            await asyncio.sleep(0)
        for task in waiting:
            task.cancel()
        ended, going_on = await asyncio.wait(waiting, timeout=5.0)
        await store.close()
        assert not going_on
        assert all(task.cancelled() for task in ended)

    asyncio.run(main())


async def _renewing(store, identity):
    while True:
        await store.renew_lock(identity, 60.0)


def test_an_expired_lock_is_taken_again_when_nobody_led_meanwhile(redis_url, run_name):
    """A leader that was late renews, since nothing happened that it does not know."""

    async def test(store, me):
        async with Redis.from_url(redis_url) as redis:
            await redis.delete(Keys.of(run_name).lock)
        await store.renew_lock(me, 60.0)
        assert await store.take_lock("b", "there:2", 60.0) == Held("here:1")

    on_store(redis_url, run_name, test)


def test_fresh_drops_the_run_but_not_the_epoch(redis_url, run_name):
    """A run that is started over has no journal, and its leaders are still told from earlier ones."""

    async def test(store, me):
        await store.commit(me, CommitRecord(1, b"old", (failure(),), (Page("head", 1, b"p"),)))
        await store.add_history(me, Piece(1, 50.0, b"what blocks took", (Page("0:0", 1, b"all of it"),)))
        await store.write_spec(me, run_of(run_name), fresh=False)
        assert await record_in(store) == (1, [(1, 50.0, b"what blocks took")], [Page("0:0", 1, b"all of it")])
        await store.write_spec(me, run_of(run_name), fresh=True)
        assert await record_in(store) == (0, [], [])
        journal = await contents_of(store)
        assert (journal.seq, journal.pages, journal.records) == (0, [], [])
        assert await store.failures() == []
        await store.commit(me, CommitRecord(1, b"new"))
        await store.free_lock(me)
        assert await store.take_lock("b", "there:2", 60.0) == int(me.split(":")[0]) + 1

    on_store(redis_url, run_name, test)


def test_pages_that_were_lost_are_missed_although_others_are_written_after_them(redis_url, run_name):
    """What should be there is counted, not looked at: a commit with pages does not hide that earlier ones are gone."""

    async def test(store, me):
        await store.write_spec(me, run_of(run_name), fresh=False)
        await store.commit(me, CommitRecord(1, b"1", (), (Page("head", 1, b"p"), Page("0:0:0", 1, b"p"))))
        await store.commit(me, CommitRecord(2, b"2", (), (Page("head", 2, b"p"), Page("0:0:1", 2, b"p")), drop_below=2))
        await store.check_whole()
        async with Redis.from_url(redis_url) as redis:
            await redis.delete(Keys.of(run_name).pages)
        await store.commit(me, CommitRecord(3, b"3", (), (Page("head", 3, b"p"), Page("0:0:2", 3, b"p"))))
        with pytest.raises(StoreError, match="lacks keys"):
            await store.check_whole()

    on_store(redis_url, run_name, test)


def test_a_run_on_which_an_older_version_wrote_is_whole(redis_url, run_name):
    """It trimmed the log and added a page, and did not say so: after a rollback and an upgrade the run goes on."""

    async def test(store, me):
        await store.write_spec(me, run_of(run_name), fresh=False)
        await store.commit(me, CommitRecord(1, b"1", (), (Page("head", 1, b"p"),)))
        keys = Keys.of(run_name)
        async with Redis.from_url(redis_url) as redis:
            await redis.xadd(keys.log, {"r": b"2"}, id="2-0")
            await redis.xtrim(keys.log, minid="2-0")
            await redis.hset(keys.pages, "0:0:0", b"\x02" + bytes(7) + b"p")
            await redis.hset(keys.head, "seq", 2)
            await store.check_whole()
            await store.commit(me, CommitRecord(3, b"3"))
            await store.check_whole()
            await redis.delete(keys.pages)
        with pytest.raises(StoreError, match="lacks keys"):
            await store.check_whole()

    on_store(redis_url, run_name, test)


async def record_in(store):
    """All that Redis holds of the record of the run."""
    pieces = [piece async for piece in store.history_pieces()]
    return await store.last_piece(), pieces, [page async for some in store.history_pages() for page in some]


def test_a_piece_of_the_record_is_kept_once(redis_url, run_name):
    """Sent again, alone or after the next one, it changes nothing; what its pages contain is dropped with it."""

    async def test(store, me):
        first, second = Piece(1, 50.0, b"a", (Page("0:0", 1, b"old"),)), Piece(2, 51.0, b"b")
        assert [await store.add_history(me, piece) for piece in (first, first, second, first)] == [0, 1, 1, 2]
        assert await record_in(store) == (2, [(1, 50.0, b"a"), (2, 51.0, b"b")], [Page("0:0", 1, b"old")])
        await store.add_history(me, Piece(3, 52.0, b"", (Page("0:0", 3, b"new"),), drop_below=3))
        await store.add_history(me, first)
        assert await record_in(store) == (3, [], [Page("0:0", 3, b"new")])

    on_store(redis_url, run_name, test)


def test_a_deposed_leader_adds_nothing_to_the_record(redis_url, run_name):
    """What it has not kept yet is its successor's to count, or nobody's."""

    async def test(store, me):
        await store.add_history(me, Piece(1, 50.0, b"mine"))
        await store.free_lock(me)
        await store.take_lock("b", "there:2", 60.0)
        with pytest.raises(Refused, match="another scheduler leads"):
            await store.add_history(me, Piece(2, 51.0, b"late", (Page("0:0", 2, b"late"),), drop_below=2))
        assert await record_in(store) == (1, [(1, 50.0, b"mine")], [])

    on_store(redis_url, run_name, test)


def test_a_newer_schema_is_refused_with_a_sentence(redis_url, run_name):
    """A run that a newer version wrote is not touched."""

    async def test(store, _):
        async with Redis.from_url(redis_url) as redis:
            await redis.set(Keys.of(run_name).schema, 99)
        with pytest.raises(StoreError, match="newer blockyard \\(schema 99"):
            await store.read_spec()

    on_store(redis_url, run_name, test)


def test_errors_are_bounded_by_block_and_size(redis_url, run_name):
    """Of one block the last attempts are kept, and of one error its end: Redis does not fill up."""

    async def test(store, me):
        for attempt in range(1, 8):
            note = failure(attempt=attempt, message="m" * 10_000, traceback="t" * 100_000 + "END")
            await store.commit(me, CommitRecord(attempt, b"r", (note,)))
        kept = await store.failures_of("work", 7)
        assert [note.attempt for note in kept] == [4, 5, 6, 7]
        assert all(len(note.error.message) <= 2000 for note in kept)
        assert all(len(note.error.traceback) <= 8000 and note.error.traceback.endswith("END") for note in kept)

    on_store(redis_url, run_name, test)


def test_when_everything_fails_only_final_errors_are_kept(redis_url, run_name, monkeypatch):
    """After many errors a failed block is still named with its error, in short."""
    monkeypatch.setattr(store_module, "WHOLE_ERRORS", 2)

    async def test(store, me):
        notes = tuple(failure(block, final=block % 2 == 0) for block in range(6))
        await store.commit(me, CommitRecord(1, b"r", notes))
        kept = await store.failures()
        assert [(note.block_id, bool(note.error.traceback)) for note in kept] == [
            (0, True),
            (1, True),
            (2, False),
            (4, False),
        ]

    on_store(redis_url, run_name, test)


# ----- answers that do not come -------------------------------------------------------------------------------------


def test_a_commit_whose_answer_is_lost_is_written_once(redis_url, run_name, tmp_path):
    """The connection breaks after Redis wrote and before it answered: the repetition is told 'already'."""

    async def main():
        async with FaultyRedis(redis_url, tmp_path) as faulty:
            store = Store(faulty.url, run_name)
            me = f"{await store.take_lock('a', 'here:1', 60.0)}:a"
            await store.commit(me, CommitRecord(1, b"first"))
            faulty.drop_answers_to = b"a-record-to-lose"
            await store.commit(me, CommitRecord(2, b"a-record-to-lose"))
            assert store.commits_repeated >= 1
            assert [record for _, record in (await contents_of(store)).records] == [b"first", b"a-record-to-lose"]
            await store.close()

    asyncio.run(main())


def test_a_late_answer_is_never_taken_for_that_of_the_next_command(redis_url, run_name, tmp_path):
    """A command that timed out gives up its connection: its answer cannot be mistaken for another's."""

    async def main():
        async with FaultyRedis(redis_url, tmp_path) as faulty:
            store = Store(faulty.url, run_name, answer_s=0.1)
            me = f"{await store.take_lock('a', 'here:1', 60.0)}:a"
            faulty.passing.clear()
            commit = asyncio.ensure_future(store.commit(me, CommitRecord(1, b"slow")))
            await until(lambda: store.commits_repeated >= 2)
            assert not commit.done()
            faulty.passing.set()
            await commit
            await store.commit(me, CommitRecord(2, b"next"))
            assert (await contents_of(store)).records == [(1, b"slow"), (2, b"next")]
            await store.close()

    asyncio.run(main())


def test_a_commit_outlives_a_redis_that_is_restarted(run_name, tmp_path):
    """Redis is killed and comes back from its file: the commit waits and is written; the script is loaded anew."""

    async def main():
        with EmbeddedRedis(tmp_path, fsync="always") as server:
            store = Store(server.url, run_name)
            me = f"{await store.take_lock('a', 'here:1', 60.0)}:a"
            await store.commit(me, CommitRecord(1, b"first"))
            os.kill(server.pid, signal.SIGKILL)
            await until(lambda: not server.alive())
            commit = asyncio.ensure_future(store.commit(me, CommitRecord(2, b"second")))
            await until(lambda: store.commits_repeated >= 1)
            await asyncio.to_thread(server.restart)
            await asyncio.wait_for(commit, 20)
            assert (await contents_of(store)).records == [(1, b"first"), (2, b"second")]
            await store.close()

    asyncio.run(main())


def test_a_full_redis_is_waited_for(run_name, tmp_path):
    """Out of memory is an answer that passes: nothing is written, and the commit goes in when there is room."""

    async def main():
        with EmbeddedRedis(tmp_path, fsync="no") as server:
            store = Store(server.url, run_name)
            me = f"{await store.take_lock('a', 'here:1', 60.0)}:a"
            await store.commit(me, CommitRecord(1, b"first"))
            async with Redis.from_url(server.url) as redis:
                await redis.config_set("maxmemory", "1")
                commit = asyncio.ensure_future(store.commit(me, CommitRecord(2, b"second")))
                await until(lambda: store.commits_repeated >= 2)
                assert [seq for seq, _ in (await contents_of(store)).records] == [1]
                await redis.config_set("maxmemory", "0")
            await asyncio.wait_for(commit, 20)
            assert [seq for seq, _ in (await contents_of(store)).records] == [1, 2]
            await store.close()

    asyncio.run(main())


# ----- what Redis must promise --------------------------------------------------------------------------------------


def checked(url):
    async def main():
        store = Store(url, "run")
        try:
            return await store.check()
        finally:
            await store.close()

    return asyncio.run(main())


def test_a_durable_redis_gives_no_warning(tmp_path):
    """Append-only, synced always, never evicting: nothing to say."""
    with EmbeddedRedis(tmp_path, fsync="always") as server:
        assert checked(server.url) == []


def configure(server, *settings):
    async def main():
        async with Redis.from_url(server.url) as redis:
            for name, value in settings:
                await redis.config_set(name, value)

    asyncio.run(main())


def test_a_redis_that_promises_less_is_warned_about(tmp_path):
    """Without the append-only file, or with it synced now and then, the user is told what can be lost."""
    with EmbeddedRedis(tmp_path, fsync="everysec") as server:
        assert "appendfsync everysec" in checked(server.url)[0]
        configure(server, ("appendonly", "no"), ("maxmemory-policy", "allkeys-lru"))
        warnings = checked(server.url)
        assert any("maxmemory-policy allkeys-lru" in warning for warning in warnings)
        assert any("appendonly is no" in warning for warning in warnings)


def test_a_redis_that_evicts_is_refused(tmp_path):
    """A run's state must not be dropped when memory is full."""
    with EmbeddedRedis(tmp_path, fsync="no") as server:
        configure(server, ("maxmemory-policy", "allkeys-lru"), ("maxmemory", "100mb"))
        with pytest.raises(StoreError, match=r"maxmemory-policy is allkeys-lru.*set maxmemory-policy to noeviction"):
            checked(server.url)


def test_a_replica_is_refused(tmp_path):
    """A replica takes no writes; the sentence says whose it is."""
    with EmbeddedRedis(tmp_path, fsync="no") as server:

        async def become_a_replica():
            async with Redis.from_url(server.url) as redis:
                await redis.replicaof("127.0.0.1", "1")

        asyncio.run(become_a_replica())
        with pytest.raises(StoreError, match=r"replica of 127\.0\.0\.1:1 and takes no writes"):
            checked(server.url)


def test_an_old_redis_is_refused(redis_url, tmp_path):
    """The version must be 6.2 or newer."""

    async def main():
        async with FaultyRedis(redis_url, tmp_path) as faulty:
            async with Redis.from_url(redis_url) as redis:
                found = (await redis.info("server"))["redis_version"]
            old = "5.0." + "1" * (len(found) - 4)
            faulty.replace = (f"redis_version:{found}".encode(), f"redis_version:{old}".encode())
            store = Store(faulty.url, "run")
            try:
                with pytest.raises(StoreError, match=rf"version {old}; blockyard needs 6\.2 or newer"):
                    await store.check()
            finally:
                await store.close()

    asyncio.run(main())


def unreachable(url):
    async def main():
        store = Store(url, "run")
        try:
            await store.wait_reachable(0.0)
        finally:
            await store.close()

    with pytest.raises(StoreError) as caught:
        asyncio.run(main())
    assert not isinstance(caught.value, Uncertain)
    return str(caught.value)


def test_a_redis_that_does_not_answer_is_named_without_its_password(tmp_path):
    """The sentence says where nobody answers, and no secret."""
    sentence = unreachable(f"unix://:geheim@{tmp_path}/none.sock?db=0")
    assert str(tmp_path / "none.sock") in sentence
    assert "does not answer" in sentence
    assert "geheim" not in sentence


def test_a_wrong_password_is_said_at_once(redis_url):
    """Waiting does not cure a wrong password."""
    path = place(redis_url)
    assert "refuses us" in unreachable(f"unix://:wrong@{path}?db=0")


@pytest.mark.parametrize("url", ["localhost:6379", "http://x", "redis://h:port/0", ""])
def test_an_address_that_is_none_is_a_sentence(url):
    """A URL that nobody can connect to says how one looks."""
    with pytest.raises(StoreError, match="redis://HOST:PORT/DB"):
        Store(url, "run")
