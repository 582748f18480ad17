"""Small faults put into plan, core and leader, one at a time: the tests must catch each.

    python tests/mutants.py              all of them (a few minutes)
    python tests/mutants.py --sample 6   every so many-th, for CI
    python tests/mutants.py edges        those whose name contains a word

A mutant is a piece of text that occurs exactly once in a file, and what replaces it. The library is copied aside,
changed there and put first on the module path of a pytest process with the ``mutants`` profile (short). A mutant whose
text is gone is an error too: the code changed, so write it anew.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLAN = ("tests/plan/test_plan_against_oracle.py",)
CORE = ("tests/core",)
FAIL_FAST = ("tests/core/test_failfast.py",)
LEADER = ("tests/leader",)
VIEWS = ("tests/views/test_attempts.py", "tests/record/test_history.py", "tests/views/test_valuemap.py")


@dataclass(frozen=True)
class Mutant:
    """One fault."""

    name: str
    file: str
    """Below src/blockyard."""
    old: str
    new: str
    tests: tuple[str, ...]


def _plan(name: str, file: str, old: str, new: str) -> Mutant:
    return Mutant(f"{file}: {name}", f"plan/{file}.py", old, new, PLAN)


def _core(name: str, file: str, old: str, new: str) -> Mutant:
    return Mutant(f"{file}: {name}", f"core/{file}.py", old, new, CORE)


def _fail_fast(name: str, old: str, new: str, file: str = "failfast") -> Mutant:
    return Mutant(f"{file}: {name}", f"core/{file}.py", old, new, FAIL_FAST)


def _skip(name: str, old: str, new: str) -> Mutant:
    return Mutant(f"seconds: {name}", "core/seconds.py", old, new, ("tests/core/test_skipping.py",))


def _health(name: str, old: str, new: str, file: str = "health") -> Mutant:
    return Mutant(f"{file}: {name}", f"core/{file}.py", old, new, ("tests/core/test_health.py",))


def _view(name: str, file: str, old: str, new: str) -> Mutant:
    return Mutant(f"{file}: {name}", f"{file}.py", old, new, VIEWS)


def _leader(name: str, file: str, old: str, new: str) -> Mutant:
    return Mutant(f"{file}: {name}", f"leader/{file}.py", old, new, LEADER)


MUTANTS = (
    # --- the grid
    _plan("valid counts the remainder", "grid", "max(n, 0) // s for", "max(ceil_div(n, s), 0) for"),
    _plan("overhang drops the remainder", "grid", "max(ceil_div(n, s), 0) for", "max(n // s, 0) for"),
    _plan("context above counts twice", "grid", "n - b - a for n, b, a", "n - a - a for n, b, a"),
    _plan(
        "first write at the total ROI",
        "grid",
        "t + c for t, c in zip(self.total_begin",
        "t for t, c in zip(self.total_begin",
    ),
    _plan(
        "context above from the wrong end",
        "grid",
        "r - w for w, r in zip(write.end, read.end",
        "w - r for w, r in zip(write.begin, read.begin",
    ),
    _plan("shrink ends at the total ROI", "grid", "limit = [t - a for", "limit = [t for"),
    _plan("shrink does not clip reads", "grid", "min(b + n, e) - b for b, n, e", "n for b, n, e"),
    _plan("ids count the first axis fastest", "grid", "for n in reversed(self.shape):", "for n in self.shape:"),
    _plan("a box ends one block early", "grid", "hi.append(ceil_div(b, stride))", "hi.append(b // stride)"),
    _plan("a box begins one block late", "grid", "lo.append(a // stride)", "lo.append(ceil_div(a, stride))"),
    _plan("touching is meeting", "grid", "if a >= b:", "if a > b:"),
    _plan(
        "shrink writes to the end of the last block",
        "grid",
        'if self.fit == "shrink" else end)',
        'if self.fit == "valid" else end)',
    ),
    # --- levels
    _plan("modulus from the context below alone", "levels", "min(1 + max(b, a), n) for", "min(1 + b, n) for"),
    _plan(
        "modulus one too large",
        "levels",
        "moduli = tuple(min(1 + max(b, a), n)",
        "moduli = tuple(min(2 + max(b, a), n)",
    ),
    _plan(
        "modulus not cut to the grid", "levels", "moduli = tuple(min(1 + max(b, a), n)", "moduli = tuple(1 + max(b, a)"
    ),
    _plan("no conflict backward", "levels", "offsets[(forward | backward)", "offsets[forward"),
    _plan("conflict only both ways", "levels", "(forward | backward)", "(forward & backward)"),
    _plan("levels ascend", "levels", "return self.count - 1 - self.rank(indices)", "return self.rank(indices)"),
    _plan(
        "waits for higher levels",
        "levels",
        "(other < rank) if higher else (other > rank)",
        "(other > rank) if higher else (other < rank)",
    ),
    _plan("context rounds down", "levels", "above = [ceil_div(c, s) for", "above = [c // s for"),
    # --- edges
    _plan(
        "grown by the wrong contexts",
        "edges",
        "begin - down.above[axis], end + down.below[axis]",
        "begin - down.below[axis], end + down.above[axis]",
    ),
    _plan(
        "upper bound rounds down", "edges", "np.where(a < b, -(-b // stride), lo)", "np.where(a < b, b // stride, lo)"
    ),
    _plan("shrink reads unclipped upstream", "edges", 'if down.fit == "shrink":', 'if down.fit == "overhang":'),
    _plan(
        "clipped writes counted whole",
        "edges",
        "end = np.minimum(begin + up.stride[axis], up.write_end[axis])",
        "end = begin + up.stride[axis]",
    ),
    _plan("boxes grown by the wrong contexts", "edges", "(b - a, e + c) for", "(b - c, e + a) for"),
    _plan(
        "common is any",
        "edges",
        "np.maximum(first_lo, last_lo)[0], np.minimum(first_hi, last_hi)[0]",
        "np.minimum(first_lo, last_lo)[0], np.maximum(first_hi, last_hi)[0]",
    ),
    # --- requests
    _plan(
        "upstream of a request is not closed",
        "requests",
        "boxes += [grids[upstream].writers(grid",
        "[grids[upstream].writers(grid",
    ),
    _plan("overlapping boxes are kept twice", "requests", "    for other in kept:\n", "    for other in ():\n"),
    _plan("upstream of a whole target is not whole", "requests", "whole.add(upstream)", "pass"),
    # --- Z-order
    _plan("first axis lowest", "zorder", "for axis in reversed(range(ndim)):", "for axis in range(ndim):"),
    _plan("largest stride is the unit", "zorder", "min(grid.stride[axis]", "max(grid.stride[axis]"),
    _plan("used-up axes take bits", "zorder", "if bit < bits[axis]:", "if bit <= bits[axis]:"),
    # --- the frontier
    _core(
        "a chunk's neighbours are not asked",
        "ready/frontier",
        "levels.count_blockers(self.task.undone_box(first, last), first, lo, hi)",
        "levels.count_blockers(self.task.undone_box(lo, hi), lo, lo, hi)",
    ),
    _core("counts down by one only", "ready/frontier", "left = counters[flat] - counts", "left = counters[flat] - 1"),
    _core(
        "parked chunks stay parked",
        "ready/frontier",
        "for down, parked in self._parked.pop(chunk, ()):",
        "for down, parked in ():",
    ),
    _core(
        "sparse releases wake no neighbour",
        "ready/frontier",
        "for waiters in self.task.levels.waiters(indices):",
        "for waiters in ():",
    ),
    _core("handed-out blocks are found again", "ready/frontier", "if self._handed_out[chunk]:", "if False:"),
    # --- fail-fast
    _fail_fast("an attempt too many", "watch.attempts >= ATTEMPTS", "watch.attempts > ATTEMPTS"),
    _fail_fast("two blocks are enough", "len(watch.blocks) >= BLOCKS", "len(watch.blocks) >= BLOCKS - 1"),
    _fail_fast(
        "one worker is enough", "if watch is None or not several(watch.workers, connected):", "if watch is None:"
    ),
    _fail_fast("a machine is its workers", "    if len(hosts) > 1:", "    if False:"),
    _fail_fast("losses count", "if outcome == Outcome.LOST or task in self.stops:", "if task in self.stops:"),
    _fail_fast("any outcome counts", "if outcome != Outcome.FAILED or (", "if ("),
    _fail_fast("any line counts", "(watch.kind, watch.line) != (error.kind, line)", "watch.kind != error.kind"),
    _fail_fast("any type counts", "(watch.kind, watch.line) != (error.kind, line)", "watch.line != line"),
    _fail_fast("the line is a library's", "if not LIBRARY.search(frame[0])", "if frame"),
    _fail_fast("who keeps going stops", "and not task.spec.keep_going and", "and"),
    _fail_fast("pauses while blocks are in flight", "if any(core.leases.count_by_task.values()) or now", "if now"),
    _fail_fast(
        "takes all downstream for waiting", "if all(_inside(box, edge.fed_box()) for box in down.boxes):", "if True:"
    ),
    _fail_fast("waits for nobody who is starting", "if lone else self.since_s", "if False else self.since_s"),
    _fail_fast("a stop outlives success", "failfast.lift(self, (task,))", "pass", "scheduler"),
    _fail_fast("a newcomer has no chance", "failfast.reopen(self, worker) and self.reason", "False", "scheduler"),
    _fail_fast("a stopped task is leased", "and task.number not in core.fail_fast.stops", "", "assign"),
    _fail_fast(
        "a stop is not replayed", "for task, stop in record.stops.items():", "for task, stop in ():", "snapshots"
    ),
    _fail_fast("a stop is in no page", "stops=core.fail_fast.stops,", "", "snapshots"),
    # --- one bad machine
    _health("goes back to who failed it", "return worker not in failers if", "return True if"),
    _health("another worker of the machine will do", "if self.hosts - hosts:", "if False:"),
    _health("suspects try it again", "if not _is_suspect(core, number, worker.id)]", "]"),
    _health("waits for who never asks", "return ours and (worker.want > 0 or", "return ours and (True or"),
    _health("waits for ever", "now >= since_s + PATIENCE_S)", "False)"),
    _health("a suspect gets all", "return 1 if now >= streak.next_s else 0", "return math.inf"),
    _health("a suspect gets nothing", "return 1 if now >= streak.next_s else 0", "return 0"),
    _health("pauses do not grow", "2.0 ** min(self.probes, 10)", "1.0"),
    _health("is held back though alone", "or not self.able[task].workers:", "or False:"),
    _health("a bad block is the worker's fault", "excused.failures -= not excused.named", "pass"),
    _health("named for nothing", "max(streak.outdone, 0 if", "max(9, 0 if"),
    _health("never named", "streak.outdone += 1", "pass"),
    _health("never well again", "if core.health.streaks.pop((task.number, worker.id), None) is not None:", "if False:"),
    _health(
        "forgets who failed when it is handed back",
        "self._again(task, addresses[chosen], now)",
        "self.frontiers[task.number].push_back(addresses[chosen])",
        "scheduler",
    ),
    _health(
        "a rerun leaves what waits", "deque(row for row in queue if row[0] not in dropped)", "queue", "ready/retries"
    ),
    # --- batches
    _skip("one skip is all", "0.0 if task in self._run_s else 1.0", "1.0"),
    _skip("runs do not end the skipping", "self._note(task, skipped=0.0)", "pass"),
    _skip("no bound on skips", "max(float(seconds.mean()), self._least_skip_s)", "float(seconds.mean())"),
    # --- releases, retries, leases
    _core("anybody may release", "scheduler", "if grant is None or grant.worker != worker.id:", "if grant is None:"),
    _core(
        "a retry too few",
        "ready/retries",
        "failures >= max_retries",
        "failures + 1 >= max_retries",
    ),
    _core(
        "a repeated release counts again",
        "scheduler",
        "if event.seq <= worker.last_seq:",
        "if event.seq < worker.last_seq:",
    ),
    _core(
        "a worker too many", "assign", "free = task.spec.num_workers - sum(", "free = 1 + task.spec.num_workers - sum("
    ),
    _core("a kill too many", "ready/retries", "kills + 1 >= settings.kills", "kills >= settings.kills"),
    _core("losses are no reason for a pause", "ready/retries", "_doubled(1.0, beyond, settings)", "0.0"),
    # --- orphans and undoing
    _core(
        "no orphans in the own task", "ready/orphans", "for waiters in at.levels.waiters(batch):", "for waiters in ():"
    ),
    _core(
        "no reruns of later levels",
        "undo",
        "(at, waiters) for waiters in at.levels.waiters(new)",
        "(at, waiters) for waiters in ()",
    ),
    # --- the journal
    _core("ends are not replayed", "snapshots", "for ended in record.ends:", "for ended in ():"),
    _core("the head is replayed twice", "snapshots", "if seq > loaded.head_seq:", "if seq >= loaded.head_seq:"),
    _core("a record too many is dropped", "snapshots", "min([self._head_seq + 1, *unwritten])", "seq + 2"),
    _core("all leases of a grant end with one", "turn", "if len(positions) == grant.alive", "if len(positions)"),
    # --- what is recorded and shown
    _view("kills are no attempts", "views/attempts", "tries.failures + tries.kills for", "tries.failures for"),
    _view("a leased block in trouble counts twice", "views/attempts", "np.setdiff1d(leased, addresses)", "leased"),
    _view("what is undone counts too", "views/valuemap", "its_counts + counts - old_counts", "its_counts + counts"),
    _view(
        "a block that ran again counts again",
        "record/history",
        'self.rows["attempt"][ours], -1)',
        'self.rows["attempt"][ours], 0)',
    ),
    # --- the leader
    _leader("the lock is sure for ever", "claim", "now - self._renewed_s <= self.lock_s", "self._renewed_s > 0"),
    _leader("a lock from the answer on", "claim", "self.epoch, self._renewed_s = epoch, asked_s", "self.epoch = epoch"),
    _leader("who resigns leads on", "claim", "self._renewed_s = -math.inf\n\n", "pass\n\n"),
    _leader("a forgetful store is taken at once", "claim", "> PATIENT_LOCKS * self.lock_s", "> -1.0"),
    _leader("nobody waits long", "claim", "self.waited or now - self._first_s >", "self.waited or 0 >"),
    _leader("a store that went on is from before us", "fence", "and last <= self.taken_seq", ""),
    _leader("whoever writes led before us", "fence", "not writer or writer in self.before", "True"),
    _leader("an unknown record is stored", "fence", 'if answer in {"stored", "already"}:', "if True:"),
    _leader(
        "lost records are not missed", "fence", 'in {"forgot", "holed"} or last < safe_seq', 'in {"forgot", "holed"}'
    ),
    _leader("missing keys are not missed", "fence", 'in {"forgot", "holed"}', 'in {"forgot"}'),
    _leader("a lapse is as good as keeping", "fence", 'Verdict.LAPSED if answer == "lapsed" else ', ""),
    _leader("words do not wait for the lock", "turn", "AwaitLock() if says and not", "AwaitLock() if False and not"),
    _leader("silence waits for the lock", "turn", "AwaitLock() if says and not", "AwaitLock() if not"),
    _leader("what was forgotten is not written again", "turn", "if self._forgotten:", "if False:"),
    _leader(
        "a rewrite after a lapse leases on",
        "turn",
        "self.core.store_forgot(now)\n            core",
        "pass\n            core",
    ),
    _leader(
        "a rewrite goes on for ever", "turn", 'self._notes, self._forgotten, self.committed = (), "", True', "pass"
    ),
    _leader(
        "the old connection ends the new one", "turn", "if self._peers.get(event.worker) is not peer:", "if False:"
    ),
    _leader(
        "a worker is spoken to where it was",
        "turn",
        "self._peers[worker] = peer",
        "self._peers.setdefault(worker, peer)",
    ),
    _leader("an old connection stays", "turn", "if old is not None and old is not peer:", "if False:"),
    _leader(
        "who leaves is not let go",
        "turn",
        "self._end(peer, reason)\n        self._leaving",
        "pass\n        self._leaving",
    ),
    _leader("newcomers are not told what is over", "turn", "for task in sorted(self._tasks_over)]", "for task in ()]"),
    _leader(
        "newcomers are not told that all is over",
        "turn",
        "if self.core.is_over:\n            messages",
        "if False:\n            messages",
    ),
    _leader("a wish waits like a heartbeat", "turn", "isinstance(event, WorkerHeard) else", "True else"),
    _leader("heartbeats are echoed without a lock", "peer", "self.welcomed and door.claim.holds(now)", "self.welcomed"),
    _leader("heartbeats are echoed before a welcome", "peer", "self.welcomed and door", "door"),
    _leader("no flood", "peer", "self.unheard > UNHEARD", "False"),
    _leader("any token", "peer", "if not hmac.compare_digest", "if False and not hmac.compare_digest"),
    _leader("any protocol", "peer", "hello.protocol != PROTOCOL_VERSION", "False"),
    _leader(
        "who was refused is heard",
        "peer",
        "if self.ended:\n                    return",
        "if False:\n                    return",
    ),
    _leader("a standby is busy", "peer", "if door.turns is None and door.claim.epoch:", "if door.turns is None:"),
)


def killed(mutant: Mutant) -> tuple[bool, str]:
    """Whether the tests fail with the mutant in place; and pytest's last lines. Raises ValueError for a stale one."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        library = Path(folder) / "blockyard"
        shutil.copytree(ROOT / "src" / "blockyard", library, ignore=shutil.ignore_patterns("__pycache__"))
        file = library / mutant.file
        text = file.read_text()
        if text.count(mutant.old) != 1:
            raise ValueError(f"{mutant.name}: {mutant.old!r} occurs {text.count(mutant.old)} times in {mutant.file}")
        file.write_text(text.replace(mutant.old, mutant.new))
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--timeout=300", *mutant.tests],
            cwd=ROOT,
            env={
                **os.environ,
                "PYTHONPATH": folder,
                "PYTHONDONTWRITEBYTECODE": "1",
                "BLOCKYARD_HYPOTHESIS_PROFILE": "mutants",
                "BLOCKYARD_LIBRARY": folder,
            },
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode not in (0, 1):
        raise RuntimeError(
            f"{mutant.name}: pytest ended with {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
    return done.returncode != 0, done.stdout[-3000:]


def sample(of: tuple[Mutant, ...], n: int) -> list[Mutant]:
    """Give `n` mutants spread over all."""
    return [of[i * len(of) // n] for i in range(min(n, len(of)))]


def main() -> int:
    """Try the mutants; 1 if one survives."""
    parser = argparse.ArgumentParser(description="Puts small faults into plan, core and leader and runs the tests.")
    parser.add_argument("word", nargs="?", default="", help="only mutants whose name contains it")
    parser.add_argument("--sample", type=int, help="only so many of them, spread over all")
    options = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if options.word in mutant.name]
    if options.sample:
        chosen = sample(tuple(chosen), options.sample)
    survivors = []
    for mutant in chosen:
        dead, _ = killed(mutant)
        print(f"{'killed  ' if dead else 'SURVIVED'}  {mutant.name}", flush=True)
        survivors += [] if dead else [mutant.name]
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} mutants killed")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
