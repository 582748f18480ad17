"""What user code writes, in a process of its own whose standard output is watched: whole lines, of the right block."""

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from blockyard.client.output import Section, note_end, sections_of

PREPARE = """
import ctypes, logging, os, sys, threading
from pathlib import Path
from blockyard.client.output import Output
from blockyard.plan.grid import Grid
from blockyard.spec.block import Block
from blockyard.spec.model import RoiSpec, TaskSpec

one, form, log = RoiSpec((0,), (1,)), sys.argv[1], Path(sys.argv[2])
grid = Grid.of(TaskSpec(id="t", function="a:b", total_roi=RoiSpec((0,), (9,)), read_roi=one, write_roi=one))
output = Output(form, log)
output.install()

def run(block_id, work):
    output.block = Block(grid, "t", block_id, 1)
    work()
    output.over()
"""


@pytest.fixture
def wrote(tmp_path):
    """Runs a script in a process that writes to a log; gives what each block wrote, and the log."""
    log = tmp_path / "w.slot-0.log"

    def wrote(script, form="text", output=None):
        with (output or log).open("ab") as file:
            command = [sys.executable, "-c", PREPARE + script, form, str(log)]
            subprocess.run(command, stdout=file, stderr=file, check=True, timeout=60)
        found = {block: list(sections_of(tmp_path, "t", block)) for block in range(9)}
        data = log.read_bytes() if log.exists() else b""
        return {b: [data[s.begin : s.end] for _, s in sections] for b, sections in found.items() if sections}, data

    return wrote


def test_what_is_written_past_python_is_its_blocks_whether_before_or_after_it_prints(wrote):
    """By C with and without its buffer, by bytes, without an end of line; what comes between blocks is nobody's."""
    blocks, _ = wrote(
        """
c = ctypes.CDLL(None)
run(0, lambda: (c.write(1, b"C\\n", 2), print("python"), c.write(2, b"C again\\n", 8)))
run(1, lambda: sys.stdout.buffer.write(b"\\x00\\xff\\n"))
run(2, lambda: c.printf(b"with a buffer\\n"))
run(3, lambda: None)
print("a module is imported")
output.begin()
run(4, lambda: print("no end of line", end=""))
run(5, lambda: os.write(1, b"quick"))
"""
    )
    assert blocks == {
        0: [b"C\npython\nC again\n"],
        1: [b"\x00\xff\n"],
        2: [b"with a buffer\n"],
        4: [b"no end of line"],
        5: [b"quick"],
    }


def test_json_lines_of_many_threads_stay_whole_and_apart(wrote):
    """Also those that are written in pieces, and those of logging; under the worst switching of threads."""
    _, log = wrote(
        """
sys.setswitchinterval(1e-6)
def say(n):
    for k in range(500):
        print(f"begin {n}", end=" ")
        print(f"end {k}")
        sys.stderr.buffer.write(b"bytes %d" % n)
        sys.stderr.buffer.write(b" %d\\n" % k)
        logging.getLogger("x").info("log %d %d", n, k)
    print(f"rest {n}", end="")
def work():
    threads = [threading.Thread(target=say, args=(n,)) for n in range(6)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
run(3, work)
""",
        "json",
    )
    lines = [json.loads(line) for line in log.splitlines()]
    assert {line["block"] for line in lines} == {3}
    said = [line["message"] for line in lines]
    expected = [what for n in range(6) for k in range(500) for what in words(n, k)]
    assert sorted(said) == sorted([*expected, *(f"rest {n}" for n in range(6))])


def words(n, k):
    return f"begin {n} end {k}", f"bytes {n} {k}", f"log {n} {k}"


def test_json_lines_hold_what_is_no_text_and_what_has_no_end(wrote):
    """Bytes that are no UTF-8, letters cut in two, and a progress bar that never ends its line."""
    _, log = wrote(
        """
def work():
    sys.stdout.buffer.write(b"\\xff \\xc3")
    sys.stdout.buffer.write(b"\\xa9\\n")
    print("\\ud800")
    for _ in range(3): print("x" * 40_000, end="\\r")
run(0, work)
""",
        "json",
    )
    said = [json.loads(line)["message"] for line in log.splitlines()]
    assert said[:2] == ["\\xff é", "\\ud800"]
    assert "".join(said[2:]) == ("x" * 40_000 + "\r") * 3
    assert len(said) == 4


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("form", ["text", "json"])
def test_a_full_disk_is_the_users_error_where_he_writes_and_nobodys_afterwards(tmp_path, wrote, form):
    """`print` raises, as it does without us; the end of the block raises nothing."""
    wrote(
        """
def work():
    try: print("x")
    except OSError: pass
    print("y", end="")
run(0, work)
run(1, work)
sys.stdout = sys.stderr = None  # Python itself flushes what is left at its end
os._exit(0)
""",
        form,
        Path("/dev/full"),
    )


def test_attempts_that_died_in_silence_are_told_apart(tmp_path):
    """They end where they began, all at one place of the file; so does one whose agent died with it."""
    log = tmp_path / "w.slot-0.log"
    log.write_bytes(b"before")
    for block, attempt in ((1, 1), (2, 1), (1, 2), (1, 3)):
        note_end(log, Section(task="t", block=block, attempt=attempt, begin=6, at_s=float(attempt), how="it died"))
    with log.with_suffix(".blocks").open("ab") as index:
        index.write(msgspec.json.encode(Section(task="t", block=1, attempt=4, begin=6, at_s=4.0)) + b"\n")
    note_end(log, Section(task="t", block=1, attempt=5, begin=6, at_s=5.0, how="it died"))
    found = [section for _, section in sections_of(tmp_path, "t", 1)]
    assert [(section.attempt, section.end, section.how) for section in found] == [
        (1, 6, "it died"),
        (2, 6, "it died"),
        (3, 6, "it died"),
        (4, 6, ""),
        (5, 6, "it died"),
    ]
