"""The append-only file of Redis, read as what it is: every record that was ever made safe, also those dropped since."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def commands(data: bytes) -> Iterator[list[bytes]]:
    r"""Give the commands of an append-only file in order (arrays of bulk strings, as clients send them).

    >>> list(commands(b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*1\r\n$4\r\nPI"))
    [[b'GET', b'k']]
    """
    at = 0
    while data[at : at + 1] == b"*":
        end = data.index(b"\r\n", at)
        n, at = int(data[at + 1 : end]), end + 2
        words = []
        for _ in range(n):
            end = data.find(b"\r\n", at)
            size = int(data[at + 1 : end]) if end > 0 else 0
            if end < 0 or len(data) < end + 2 + size + 2:  # cut off by a kill
                return
            words.append(data[end + 2 : end + 2 + size])
            at = end + 2 + size + 2
        yield words


def files(folder: Path) -> list[Path]:
    """Return the files that a server in this folder appends to, in order; before Redis 7 there is one."""
    return sorted((folder / "appendonlydir").glob("*.incr.aof")) or sorted(folder.glob("*.aof"))


def written(folder: Path) -> Iterator[list[bytes]]:
    """Return all commands that a server in this folder has carried out, in order; those of scripts one by one."""
    for path in files(folder):
        yield from commands(path.read_bytes())


def records(folder: Path) -> Iterator[tuple[int, bytes]]:
    """Return (sequence, record) of each entry that was added to the journal, from a server's folder."""
    for words in written(folder):
        if words[0].upper() == b"XADD" and words[1].endswith(b":log"):  # not the record of the run, beside it
            yield int(words[2].split(b"-")[0]), words[-1]
