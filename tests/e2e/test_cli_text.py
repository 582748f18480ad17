"""Real runs of user code that says what terminals, encodings and disks do not like: it is told, and ends nothing."""

import json
import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

STEPS = """\
import os
import sys

TEXTS = [
    os.fsdecode(b"/data/sch\\xf6n.tif"), "\\x1b[2J\\x1b]0;title\\x07", "one\\r\\n12:00:00 INFO    well",
    "a\\x00b", "\\x9b31m",
    "abc\\u202egpj.exe", "[red]no markup[/red] :warning: {0} %s %(x)d", "<script>alert(1)</script>", "x" * 3_000_000,
    "\\u2713 \\u2588\\u258c \\U0001f600", "",
]


def step(block):
    text = TEXTS[block.block_id % len(TEXTS)]
    os.write(1, b"bytes \\xff\\xfe\\n")
    if len(text) < 1000:
        print(text, text.encode("utf-8", "replace"))
        print(text, file=sys.stderr)
    raise type(f"Odd\\N{GREEK SMALL LETTER ALPHA}Error\\x1b[31m", (Exception,), {})(text)
"""
PIPELINE = """\
name: text
tasks:
  - id: t
    function: text_steps:step
    max_retries: 0
    total_roi: {offset: [0], shape: [11]}
    read_roi: {offset: [0], shape: [1]}
    write_roi: {offset: [0], shape: [1]}
"""
SCRIPT = """\
import sys
import blockyard
from blockyard import Roi

def step(block):
    print(f"block {block.block_id} \\u2713 \\u2588\\u258c \\udcf6", flush=True)

if __name__ == "__main__":
    roi = lambda n: Roi((0,), (n,))
    sys.exit(0 if blockyard.run_blockwise(roi(3), roi(1), roi(1), step, max_retries=0) else 1)
"""


def blockyard(folder, *words, encoding="ascii", **options):
    environment = os.environ | {"PYTHONIOENCODING": encoding, "BLOCKYARD_KEEP_GOING": "1"}
    return subprocess.run(
        [sys.executable, "-m", "blockyard.cli", *words], cwd=folder, env=environment, timeout=100, check=False,
        **({"capture_output": True} | options),
    )  # fmt: skip


def is_plain(said):
    return not any(unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t" for c in said)


def test_whatever_a_block_raises_and_prints_is_told(tmp_path):
    """Eleven kinds of text: each block fails by its own exception, and every command shows it in plain ASCII."""
    (tmp_path / "text_steps.py").write_text(STEPS)
    (tmp_path / "text.yaml").write_text(PIPELINE)
    ran = blockyard(tmp_path, "run", "text.yaml", "--workers", "2")
    assert ran.returncode == 1, ran
    assert b"0 of 11 blocks" in ran.stdout
    assert is_plain(ran.stdout.decode("ascii") + ran.stderr.decode("ascii"))
    told = json.loads(blockyard(tmp_path, "failures", "--json").stdout)
    assert {failure["block_id"] for failure in told["failures"]} == set(range(11))
    assert all(
        failure["kind"] == r"Odd\u03b1Error\x1b[31m".replace(r"\u03b1", "\u03b1") for failure in told["failures"]
    )
    messages = [failure["message"] for failure in sorted(told["failures"], key=lambda failure: failure["block_id"])]
    assert messages[0] == r"/data/sch\udcf6n.tif"
    assert messages[6] == "[red]no markup[/red] :warning: {0} %s %(x)d"
    assert messages[9] == "\u2713 \u2588\u258c \U0001f600"
    assert "characters left out" in messages[8]
    assert len(messages[8]) <= 2000
    for words in (("status",), ("failures", "--traceback"), ("explain", "t", "1"), ("wait",), ("watch",)):
        shown = blockyard(tmp_path, *words)
        assert shown.returncode in (0, 1)
        assert b"Traceback (most recent call last):\n  File" not in shown.stderr
        assert is_plain(shown.stdout.decode("ascii"))
    assert blockyard(tmp_path, "logs", "t", "1").stdout.count(b"bytes \xff\xfe\n") == 1
    assert blockyard(tmp_path, "report").returncode == 0
    page = (tmp_path / "report.html").read_text()
    assert "<script" not in page
    assert is_plain(page)


def test_a_run_ends_as_it_ends_where_nobody_can_read_it(tmp_path):
    """Standard output on a full disk or closed: the exit status tells of the run, not of its words."""
    (tmp_path / "text_steps.py").write_text("def step(block): print('hello')")
    (tmp_path / "text.yaml").write_text(PIPELINE)
    with Path("/dev/full").open("w") as full:
        ran = blockyard(tmp_path, "run", "text.yaml", capture_output=False, stdout=full, stderr=full)
        assert ran.returncode == 0
        said = blockyard(tmp_path, "status", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert (said.returncode, said.stderr) == (
        1,
        b"blockyard: standard output can't be written to (No space left on device)\n",
    )
    shell = f"{sys.executable} -m blockyard.cli run text.yaml --fresh >&- 2>&-"
    assert subprocess.run(["bash", "-c", shell], cwd=tmp_path, timeout=100, check=False).returncode == 0


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_what_a_block_prints_ends_no_run(tmp_path, encoding):
    """A script whose standard output has no check mark."""
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    ran = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, env=environment, capture_output=True, timeout=100, check=False
    )
    assert ran.returncode == 0, ran.stderr
    said = ran.stdout.decode(encoding)
    assert all(f"block {n} " in said for n in range(3))
    assert ("\u2713" in said) == (encoding == "utf-8")
