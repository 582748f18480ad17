r"""The run in Redis: what it is, its journal, its snapshot, its failures and who leads.

Everything that changes a run is one Lua script, so that it happens whole or not at all, and checks who asks. The
client library's own retries are off: an answer that was lost leaves a commit *uncertain*, and only we know that it may
be sent again (same identity, same sequence) until Redis says "stored", "already" or "refused"::

    commit ---> stored | already       speak
           \--> refused                somebody else leads: say nothing more, end
           \--> out of order           Redis forgot, and nobody else leads: `rewrite` all of the run, then speak
           \--> timeout, lost, loading, read-only, out of memory: wait a little, send the same again
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec
import redis.exceptions as errors
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from blockyard.core.events import CommitRecord, FailureNote, Page
from blockyard.leader.claim import FIRST_PAUSE_S, Held
from blockyard.leader.fence import Fence, Verdict
from blockyard.record.pages import Piece
from blockyard.spec.errors import StoreError
from blockyard.spec.model import RunSpec
from blockyard.wire.messages import BlockError
from blockyard_scheduler.store import scripts
from blockyard_scheduler.store.commit_connection import CommitConnection
from blockyard_scheduler.store.durability import FORGETS, KEEPS, Durability, may_have_forgotten, promise
from blockyard_scheduler.store.keys import SCHEMA, Keys

log = logging.getLogger(__name__)

OLDEST_REDIS = (6, 2)
"""XTRIM MINID came with it."""
ANSWER_S = 5.0
"""How long one command may take before it counts as lost."""
LONGEST_PAUSE_S = 1.0
"""Between two attempts at the same commit, which doubles."""
LOAD_RECORDS, LOAD_PAGES = 1000, 100
"""How many are read at once when a run is loaded; as many pages are written at once when it is written again."""
KEPT_ATTEMPTS = 4
"""Errors kept of one block: those of its last attempts."""
WHOLE_ERRORS = 10_000
"""After so many errors only final ones are kept, without traceback: a run that fails everywhere must not fill Redis."""
MESSAGE_CHARACTERS, TRACEBACK_CHARACTERS, SHORT_CHARACTERS = 2000, 8000, 200
PASSING = ("OOM", "MISCONF", "LOADING", "BUSY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "NOREPLICAS")
"""Beginnings of answers that a person or time can cure; the command had no effect."""
NO_ENTRY = (errors.AuthenticationError, errors.AuthorizationError, errors.NoPermissionError)
"""Refusals that no waiting cures; the first comes wrapped in a ConnectionError."""

T = TypeVar("T")


class Refused(StoreError):  # noqa: N818 - a fact, and the scheduler's own end
    """Another scheduler leads this run; nothing of ours was or will be written."""


class Forgot(StoreError):  # noqa: N818 - likewise
    """Redis has another last sequence than we wrote: it lost or gained records."""


class Uncertain(StoreError):  # noqa: N818 - likewise
    """Redis did not answer, or not now; whether it did what was asked is unknown."""


def place(url: str) -> str:
    """Return host and port, or path, of a Redis URL for a sentence: never its password.

    >>> place("redis://:secret@db.local:6380/1")
    'db.local:6380'
    """
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return parts.path
    return f"{parts.hostname or 'localhost'}:{parts.port or 6379}"


class Store:
    """One run in one Redis. All methods raise Uncertain when Redis does not answer, unless they say otherwise."""

    def __init__(self, url: str, run: str, *, password: str | None = None, answer_s: float = ANSWER_S) -> None:
        """Connect to nothing yet. Raises StoreError for a URL that is none."""
        self.keys = Keys.of(run)
        self.commits_repeated = 0
        self.errors_seen = 0
        """How often Redis did not do what was asked."""
        self.rewrites = 0
        """How often all of the run was written again because Redis had forgotten."""
        self._n_errors = 0
        self.keeps = False
        """Whether a restart of Redis keeps all that it confirmed, as of `check`."""
        self._fence = Fence()
        self._run = run
        try:
            self.place = place(url)
            self._redis = Redis.from_url(
                url,
                password=password,
                retry=Retry(NoBackoff(), 0),
                decode_responses=False,
                socket_timeout=answer_s,
                socket_connect_timeout=answer_s,
            )
            # The commit's connection is its own: a slow disk must not hold up the renewal of the lock.
            self._commit_connection = CommitConnection(url, password=password, answer_s=answer_s)
        except ValueError as error:
            raise StoreError(
                f"--redis-url is not an address of a Redis ({error}); write redis://HOST:PORT/DB, rediss://... for TLS,"
                " or unix://PATH"
            ) from None
        self._digests: dict[str, str] = {}

    async def close(self) -> None:
        """Close the connections."""
        await self._commit_connection.close()
        await self._redis.aclose()

    # --- what Redis promises -----------------------------------------------------------------------------------

    async def wait_reachable(self, within_s: float) -> None:
        """Return when Redis answers. Raises StoreError when it does not within the time, or refuses us."""
        until = time.monotonic() + within_s
        while True:
            try:
                await self._ask(self._redis.ping())
            except Uncertain as error:
                if time.monotonic() > until:
                    raise StoreError(
                        f"Redis at {self.place} does not answer ({error.__cause__}); start it, or give another"
                        " --redis-url"
                    ) from None
                await asyncio.sleep(0.1)
            else:
                return

    async def check(self) -> list[str]:
        """Return a warning for each promise that Redis makes only in part.

        Raises StoreError, with a sentence, where a run would not be safe: too old, evicting, or a read-only replica.
        """
        info: dict[str, Any] = await self._ask(self._redis.info())
        version = str(info.get("redis_version", "0"))
        if tuple(int(n) for n in version.split(".")[:2] if n.isdigit()) < OLDEST_REDIS:
            raise StoreError(f"Redis at {self.place} is version {version}; blockyard needs 6.2 or newer, or Valkey")
        if info.get("role") in ("slave", "replica"):
            raise StoreError(
                f"Redis at {self.place} is a replica of {info.get('master_host')}:{info.get('master_port')} and takes"
                " no writes; give the address of its primary"
            )
        policy = str(info.get("maxmemory_policy", "noeviction"))
        if policy != "noeviction" and int(info.get("maxmemory", 0)) > 0:
            raise StoreError(
                f"Redis at {self.place} drops keys when its memory is full (maxmemory-policy is {policy}), and a run"
                " would lose its state; set maxmemory-policy to noeviction"
            )
        warnings = []
        if policy != "noeviction":
            warnings.append(
                f"Redis at {self.place} has the maxmemory-policy {policy}: set it to noeviction before somebody sets a"
                " limit to its memory"
            )
        if missing := await self._script(scripts.RIGHTS, (self.keys.log,), ()):
            commands = " ".join(f"+{name.decode().lower()}" for name in missing)
            raise StoreError(
                f"Redis at {self.place} does not let us call all that a run needs; give its user these rights:"
                f" {commands} on ~blockyard:*"
            )
        self.keeps, unkept = promise(info, await self._fsync())
        return warnings + [f"Redis at {self.place} {warning}" for warning in unkept]

    async def _fsync(self) -> str | None:
        """Return the setting appendfsync; None where Redis hides it."""
        try:
            found = (await self._ask(self._redis.config_get("appendfsync"))).get("appendfsync")
        except (StoreError, errors.ResponseError):
            return None
        return found.decode() if isinstance(found, bytes) else found

    @property
    def _known(self) -> str:
        """What is known of those who led before us, for the scripts: their last record, and their identities."""
        return f"{self._fence.taken_seq} {' '.join(sorted(self._fence.before))}"

    async def may_have_forgotten(self) -> bool:
        """Whether this Redis may lack records that an earlier leader wrote; ask when the run is loaded."""
        mark = Durability.parse(await self._ask(self._redis.hget(self.keys.head, "server")) or b"")
        info = await self._ask(self._redis.info("server"))
        now = Durability(str(info.get("run_id", "")), self.keeps)
        return may_have_forgotten(mark, now)

    def _promise(self) -> str:
        return KEEPS if self.keeps else FORGETS

    # --- who leads ---------------------------------------------------------------------------------------------

    async def take_lock(
        self, nonce: str, address: str, lock_s: float, seen_epoch: int = 0, process: str = ""
    ) -> int | Held:
        """Become the leader and give the epoch, or say who leads. May be repeated with the same nonce.

        `seen_epoch` is the highest epoch that Redis is known to have counted: below it nobody is made leader. `process`
        is the name of ours.
        """
        keys = (self.keys.lock, self.keys.epoch, self.keys.head)
        arguments = (nonce, _ms(lock_s), address, seen_epoch, process)
        taken, value, more, *held = await self._script(scripts.TAKE, keys, arguments)
        if taken == 1:
            self._fence.took(more.decode())
            return int(value)
        if taken < 0:
            return Held("", int(more), forgot=True)
        left_ms, identity, theirs = held
        return Held(value.decode(), int(more), max(left_ms, 0) / 1000, identity.decode(), theirs.decode())

    async def renew_lock(self, identity: str, lock_s: float, *, vouch: bool = False) -> bool:
        """Keep the lock; False where another may have led since it lapsed. With `vouch` note that Redis holds all.

        Raises Refused when another leads, Forgot when Redis lost what it had confirmed.
        """
        keys, safe_seq = (self.keys.lock, *self._whole), self._fence.safe_seq
        arguments = (identity, _ms(lock_s), self._known, safe_seq, self._promise() if vouch else "")
        answer, writer, last = await self._script(scripts.RENEW, keys, arguments)
        verdict = self._fence.judge_renewal(answer.decode(), last, safe_seq)
        if verdict is Verdict.REFUSED:
            raise self._refused(writer)
        if verdict is Verdict.FORGOT and answer == b"holed" and last >= safe_seq:
            raise Forgot(f"Redis at {self.place} lacks keys of run '{self._run}': they were deleted or evicted")
        if verdict is Verdict.FORGOT:
            raise self._forgot(last, safe_seq)
        return verdict is not Verdict.LAPSED

    async def free_lock(self, identity: str) -> None:
        """Let another lead at once, if the leader of this identity has the lock."""
        await self._script(scripts.RESIGN, (self.keys.lock,), (identity,))

    def _refused(self, writer: bytes) -> Refused:
        epoch = writer.split(b":")[0].decode() or "unknown"
        return Refused(
            f"another scheduler leads run '{self._run}' now (epoch {epoch}); this one stops and says nothing more"
        )

    # --- the run -----------------------------------------------------------------------------------------------

    async def read_spec(self) -> RunSpec | None:
        """Return the run as it was accepted last; None for a new one. Raises StoreError for a newer schema."""
        schema, spec = await self._ask(self._redis.mget(self.keys.schema, self.keys.spec))
        if schema is not None and int(schema) > SCHEMA:
            raise StoreError(
                f"run '{self._run}' in Redis at {self.place} was written by a newer blockyard (schema {int(schema)},"
                f" this one knows {SCHEMA}); use that version, or start the run over with --fresh"
            )
        return None if spec is None else msgspec.json.decode(spec, type=RunSpec)

    async def check_whole(self) -> None:
        """Raises StoreError where there is a run of which something is missing."""
        if await self._script(scripts.LACKS, self._whole, ()):
            raise StoreError(
                f"Redis at {self.place} lacks keys of run '{self._run}': they were deleted, or evicted by a"
                " maxmemory-policy other than noeviction; restore Redis from its file, or start over with --fresh"
            )

    async def write_spec(self, identity: str, run: RunSpec, *, fresh: bool) -> None:
        """Store what the run is; with `fresh` drop all that was. Raises Refused when another leads."""
        keys = (self.keys.head, *self.keys.of_a_run, self.keys.history, self.keys.history_pages, self.keys.code)
        arguments = (identity, SCHEMA, msgspec.json.encode(run), int(fresh), self._promise())
        answer, writer = await self._script(scripts.BEGIN, keys, arguments)
        if answer != b"stored":
            raise self._refused(writer)

    async def last_piece(self) -> int:
        """Return the number of the last piece of the record of the run; 0: there is none."""
        return int(await self._ask(self._redis.hget(self.keys.head, "kept")) or 0)

    async def history_pages(self) -> AsyncIterator[list[Page]]:
        """Return the pages of the record of the run, some at a time."""
        async for piece in self._pages_of(self.keys.history_pages):
            yield piece

    async def history_pieces(self) -> AsyncIterator[tuple[int, float, bytes]]:
        """Return what of the record of the run may be in no page, (number, Unix seconds, batches), in order."""
        async for entries in self._entries(self.keys.history):
            for name, fields in entries:
                yield _number(name), float(fields[b"t"]), fields[b"b"]

    async def add_history(self, identity: str, piece: Piece) -> int:
        """Keep a piece of the record of the run, once, and give the number of the last one before it.

        May be repeated. Raises Refused when another leads.
        """
        keys = (self.keys.head, self.keys.history, self.keys.history_pages)
        arguments = (identity, piece.seq, f"{piece.at_s:.1f}", piece.batches, piece.drop_below, *_packed(piece.pages))
        answer, writer, last = await self._script(scripts.RECORD, keys, arguments)
        if answer == b"refused":
            raise self._refused(writer)
        return int(last)

    async def read_page(self) -> str:
        """Return the address of the leader's page; "" for none."""
        page = await self._ask(self._redis.get(self.keys.page))
        return "" if page is None else page.decode()

    async def write_page(self, address: str) -> None:
        """Say where the leader's page is. Nothing depends on it."""
        await self._ask(self._redis.set(self.keys.page, address))

    async def read_code(self) -> dict[str, str]:
        """Return the digest of the code that each task's first blocks ran, as far as it is known."""
        kept = await self._ask(self._redis.hgetall(self.keys.code))
        return {task.decode(): code.decode() for task, code in kept.items()}

    async def write_code(self, code: Mapping[str, str]) -> None:
        """Keep it for some tasks. Nothing depends on it."""
        fields: dict[Any, Any] = dict(code)
        await self._ask(self._redis.hset(self.keys.code, mapping=fields))

    async def read_notes(self) -> dict[str, bytes]:
        """Return what is kept about the size of pools, by pool."""
        kept = await self._ask(self._redis.hgetall(self.keys.scaling))
        return {pool.decode(): note for pool, note in kept.items()}

    async def write_note(self, identity: str, pool: str, note: bytes) -> None:
        """Keep what a successor must know of a pool. Raises Refused when another leads."""
        arguments = (identity, pool, note)
        answer, writer = await self._script(scripts.NOTE, (self.keys.head, self.keys.scaling), arguments)
        if answer != b"stored":
            raise self._refused(writer)

    async def last_seq(self) -> int:
        """Return the sequence of the last record; 0 for a new run. Prepares this store to go on from there."""
        self._n_errors = int(await self._ask(self._redis.hlen(self.keys.errors)))
        self._fence.loaded(int(await self._ask(self._redis.hget(self.keys.head, "seq")) or 0))
        return self._fence.safe_seq

    @property
    def _whole(self) -> tuple[str, ...]:
        """The keys that a run consists of, as the scripts take them to see whether any is missing."""
        keys = self.keys
        return (keys.head, keys.schema, keys.spec, keys.log, keys.pages)

    async def pages(self) -> AsyncIterator[list[Page]]:
        """Return the snapshot in pieces (125 MB for 10^9 blocks). For the leader alone: nobody writes meanwhile."""
        async for piece in self._pages_of(self.keys.pages):
            yield piece

    async def _pages_of(self, hash_key: str) -> AsyncIterator[list[Page]]:
        piece: list[Page] = []
        async for key, value in self._scan(hash_key, LOAD_PAGES):
            piece.append(_page(key, value))
            if len(piece) >= LOAD_PAGES:
                yield piece
                piece = []
        yield piece

    async def records(self) -> AsyncIterator[list[tuple[int, bytes]]]:
        """Return the journal, (sequence, record), in pieces and in order. For the leader alone."""
        async for piece in self._entries(self.keys.log):
            yield [(_number(name), fields[b"r"]) for name, fields in piece]

    async def _entries(self, stream: str) -> AsyncIterator[list[tuple[bytes, dict[bytes, bytes]]]]:
        """Return the entries of a stream, (id, fields), in pieces and in order."""
        begin = "-"
        while True:
            piece = await self._ask(self._redis.xrange(stream, begin, "+", count=LOAD_RECORDS))
            yield piece
            if len(piece) < LOAD_RECORDS:
                return
            begin = f"({piece[-1][0].decode()}"

    async def commit(self, identity: str, commit: CommitRecord) -> None:
        """Write one record, its errors and pages; repeat until Redis has said yes or no.

        Raises Refused when another leads, Forgot when the record does not follow the last one in Redis.
        """
        keys = (self.keys.head, self.keys.log, self.keys.errors, self.keys.pages)
        arguments = self._arguments(identity, commit)
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                answer, writer, last = await self._script(scripts.COMMIT, keys, arguments, self._commit_connection.ask)
            except Uncertain as error:
                if pause_s == FIRST_PAUSE_S:
                    log.warning("commit %d is uncertain (%s); it is sent again until Redis answers", commit.seq, error)
                self.commits_repeated += 1
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                continue
            if pause_s > FIRST_PAUSE_S:
                log.warning("Redis at %s answers again: commit %d is %s", self.place, commit.seq, answer.decode())
            verdict = self._fence.judge_commit(answer.decode(), writer.decode(), last, commit.seq)
            if verdict is Verdict.REFUSED:
                raise self._refused(writer)
            if verdict is Verdict.FORGOT:
                raise self._forgot(last, commit.seq - 1)
            return

    def _forgot(self, found: int, expected: int) -> Forgot:
        return Forgot(
            f"Redis at {self.place} has {found} as the last record of run '{self._run}', not {expected}: it was emptied"
            " or started from an older file"
        )

    async def rewrite(
        self,
        identity: str,
        address: str,
        lock_s: float,
        run: RunSpec,
        seq: int,
        pages: Callable[[], Iterable[Page]],
        notes: Sequence[FailureNote] = (),
        *,
        vouch: bool = False,
    ) -> None:
        """Make `pages` all that Redis holds of the run, as of record `seq`; repeat until Redis has said yes or no.

        The pages are laid aside in pieces and become the run in one step, so that what Redis had stays until then. With
        `vouch` it is noted that this Redis holds all there is.
        Raises Refused when another leads.
        """
        fields = [self._promise() if vouch else "", *self._fields(notes)]
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                if await self._rewritten(identity, address, lock_s, run, seq, pages(), fields):
                    self._fence.rewritten(seq)
                    self.rewrites += 1
                    return
            except Uncertain as error:
                log.warning("%s; the run is written again from the beginning", error)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _rewritten(
        self,
        identity: str,
        address: str,
        lock_s: float,
        run: RunSpec,
        seq: int,
        pages: Iterable[Page],
        fields: Sequence[Any],
    ) -> bool:
        """Lay all pages aside and switch over; False where Redis forgot some of them meanwhile."""
        keys, mine = self.keys, (identity, _ms(lock_s), self._known)
        n_pages = 0
        for piece in _pieces(pages):
            arguments = [*mine, int(n_pages == 0), *_packed(piece)]
            answer, writer = await self._script(scripts.STAGE, (keys.lock, keys.head, keys.staged), arguments)
            if answer != b"stored":
                raise self._refused(writer)
            n_pages += len(piece)
        names = (keys.lock, keys.epoch, keys.head, *keys.of_a_run, keys.staged)
        arguments = [*mine, address, SCHEMA, msgspec.json.encode(run), seq, n_pages, *fields]
        answer, writer = await self._script(scripts.SWITCH, names, arguments)
        if answer == b"refused":
            raise self._refused(writer)
        return bool(answer != b"incomplete")

    def _arguments(self, identity: str, commit: CommitRecord) -> list[Any]:
        notes = self._fields(commit.errors)
        return [
            identity, commit.seq, commit.record, commit.drop_below, len(notes) // 2, *notes, *_packed(commit.pages),
        ]  # fmt: skip

    def _fields(self, notes: Iterable[FailureNote]) -> list[Any]:
        """Return the fields and values of errors, shortened."""
        fields: list[Any] = []
        for note in notes:
            if (shorter := self._shortened(note)) is not None:
                name = f"{note.task}\0{note.block_id}\0{note.attempt % KEPT_ATTEMPTS}"
                fields += [name, msgspec.msgpack.encode(shorter)]
        return fields

    def _shortened(self, note: FailureNote) -> FailureNote | None:
        """Cut an error to what is worth keeping; None: not worth keeping."""
        many = self._n_errors >= WHOLE_ERRORS
        if many and not note.final:
            return None
        self._n_errors += 1
        error = note.error
        short = BlockError(
            number=error.number,
            kind=error.kind[:SHORT_CHARACTERS],
            message=error.message[: SHORT_CHARACTERS if many else MESSAGE_CHARACTERS],
            traceback="" if many else error.traceback[-TRACEBACK_CHARACTERS:],
            worker=error.worker[:SHORT_CHARACTERS],
            log=error.log[: MESSAGE_CHARACTERS // 2],
        )
        return FailureNote(note.task, note.block_id, note.attempt, note.final, short)

    async def failures(self) -> list[FailureNote]:
        """Return the failed attempts that are kept, in the order of tasks' names, blocks and attempts."""
        notes = [
            msgspec.msgpack.decode(value, type=FailureNote)
            async for _, value in self._scan(self.keys.errors, LOAD_RECORDS)
        ]
        # In a thread: of 300,000 it takes half a second, in which leases would wait.
        return await asyncio.to_thread(sorted, notes, key=lambda note: (note.task, note.block_id, note.attempt))

    async def failures_of(self, task: str, block_id: int) -> list[FailureNote]:
        """Return the failed attempts of one block that are kept, oldest first."""
        fields = [f"{task}\0{block_id}\0{n}" for n in range(KEPT_ATTEMPTS)]
        values = await self._ask(self._redis.hmget(self.keys.errors, fields))
        notes = [msgspec.msgpack.decode(value, type=FailureNote) for value in values if value is not None]
        return sorted(notes, key=lambda note: note.attempt)

    # --- commands ----------------------------------------------------------------------------------------------

    async def _scan(self, key: str, count: int) -> Any:
        """Return the fields and values of a hash; each once, unless it is written meanwhile."""
        seen: set[bytes] = set()
        cursor = 0
        while True:
            cursor, items = await self._ask(self._redis.hscan(key, cursor, count=count))
            for name, value in items.items():
                if name not in seen:
                    seen.add(name)
                    yield name, value
            if cursor == 0:
                return

    async def _script(
        self, source: str, keys: Sequence[str], arguments: Sequence[Any], ask: Callable[..., Any] | None = None
    ) -> Any:
        """Run a script by its digest, and in full where Redis does not know it (it forgets them at a restart)."""
        ask = ask or self._redis.execute_command
        digest = self._digests.get(source)
        if digest is None:
            digest = self._digests[source] = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
        try:
            return await self._ask(ask("EVALSHA", digest, len(keys), *keys, *arguments))
        except errors.NoScriptError:
            return await self._ask(ask("EVAL", source, len(keys), *keys, *arguments))

    async def _ask(self, answer: Awaitable[Any] | Any) -> Any:
        """Await an answer; raises Uncertain for none, StoreError for one that no waiting can cure."""
        task = asyncio.current_task()
        cancelled = task.cancelling() if task is not None else 0
        try:
            return await self._answered(answer)
        finally:
            # The client (redis 8.1) loses a cancellation that comes while it connects, and who cancels waits for ever.
            if task is not None and task.cancelling() > cancelled:
                raise asyncio.CancelledError

    async def _answered(self, answer: Awaitable[Any] | Any) -> Any:
        try:
            return await answer
        except errors.NoScriptError:
            raise
        except (errors.ConnectionError, errors.TimeoutError) as error:
            self.errors_seen += 1
            if isinstance(error, NO_ENTRY) or isinstance(error.__cause__, NO_ENTRY):
                raise StoreError(
                    f"Redis at {self.place} refuses us ({error}); give user and password in --redis-url"
                ) from error
            raise Uncertain(f"Redis at {self.place}: {error or type(error).__name__}") from error
        except (OSError, asyncio.IncompleteReadError) as error:
            self.errors_seen += 1
            raise Uncertain(f"Redis at {self.place}: {error or type(error).__name__}") from error
        except errors.ResponseError as error:
            self.errors_seen += 1
            if isinstance(error, NO_ENTRY):
                raise StoreError(f"Redis at {self.place} does not let us do this ({error})") from error
            demoted = isinstance(error, errors.ReadOnlyError) or "READONLY" in str(error)  # the latter in a script
            if demoted:  # to a replica: who connects anew may find another primary behind the address
                await self._commit_connection.close()
                await self._redis.connection_pool.disconnect(inuse_connections=False)
            if demoted or isinstance(error, errors.OutOfMemoryError) or any(word in str(error) for word in PASSING):
                raise Uncertain(f"Redis at {self.place}: {error}") from error
            raise StoreError(f"Redis at {self.place} refused a command: {error}") from error


async def until_answered(ask: Callable[[], Awaitable[T]]) -> T:
    """Repeat what may be repeated until Redis answers."""
    pause_s = FIRST_PAUSE_S
    while True:
        try:
            return await ask()
        except Uncertain as error:
            log.warning("%s; trying again", error)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def _pieces(pages: Iterable[Page]) -> Iterator[list[Page]]:
    """Return pages a few at a time."""
    piece: list[Page] = []
    for page in pages:
        piece.append(page)
        if len(piece) >= LOAD_PAGES:
            yield piece
            piece = []
    if piece:
        yield piece


def _packed(pages: Iterable[Page]) -> list[Any]:
    """Return the fields and values of pages, as `_page` reads them."""
    packed: list[Any] = []
    for page in pages:
        packed += [page.key, page.seq.to_bytes(8, "little") + page.data]
    return packed


def _number(entry: bytes) -> int:
    """Return the sequence in the ID of an entry of a stream."""
    return int(entry.split(b"-")[0])


def _page(key: bytes, value: bytes) -> Page:
    return Page(key.decode(), int.from_bytes(value[:8], "little"), value[8:])


def _ms(seconds: float) -> int:
    return max(round(1000 * seconds), 1)
