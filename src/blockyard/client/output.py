"""What user code writes, and which block was running when it did.

In text the lines stay as they are written. Beside a log file ``X.log`` grows an index ``X.blocks``: a line when a block
writes its first word, and one with its end when it is over. A block that writes nothing costs nothing, and one that is
killed keeps its begin. What user code writes past Python (a program that it starts, a library in C) is found when the
block is over, by the size of the file; only where that block is killed, nothing says whose it was.

In JSON each line that is written becomes an object with run, worker, slot, task, block, index and attempt, and so do
the records of `logging`, unless user code sets that up itself: then its lines are wrapped like any other.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from blockyard.logs import JsonFormatter, json_line
from blockyard.spec.block import Block

LOOK_S = 2e-6
"""A block that took less is not asked whether it wrote past Python: that would cost more than the block."""
INDEX = ".blocks"
"""Suffix of the index beside a log file."""


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a log file that one attempt of a block wrote."""

    task: str
    block: int
    attempt: int
    begin: int
    """Place of its first byte in the file."""
    end: int = -1
    """Place after its last byte; -1 while it runs, and where it was killed."""
    at_s: float = 0.0
    """When its first word was written, seconds since 1970."""


_sections = msgspec.json.Decoder(Section)


class Output:
    """Standard output and error of a process that runs blocks; `block` is the one that runs, set by who runs it."""

    def __init__(self, form: str = "text", log: Path | None = None, level: str = "info") -> None:
        """Do nothing yet; `form` is ``text`` or ``json``, `log` the file that both go to (None: somebody else's)."""
        self.block: Block | None = None
        self.spoke = False
        """Whether the block that runs has written anything."""
        self._json = form == "json"
        self._level = level
        self._index = None if log is None else log.with_suffix(INDEX)
        self._index_fd = -1
        self._streams: list[_Marked | _JsonLines] = []
        self._begin = 0
        self._before = 0
        """Size of the log file when the last block was over."""

    def install(self) -> None:
        """Take the place of sys.stdout and sys.stderr, before any user code is imported."""
        if not self._json and self._index is None:
            return
        make = _JsonLines if self._json else _Marked
        self._streams = [make(1, self), make(2, self)]
        sys.stdout, sys.stderr = self._streams
        _installed.append(self)
        self._before = self._size()
        if self._json:
            handler = _Records(self)
            handler.setFormatter(JsonFormatter())
            logging.getLogger().addHandler(handler)
            logging.getLogger().setLevel(self._level.upper())

    def speaks(self) -> None:
        """Note that the block that runs is about to write; called by the streams."""
        if self.spoke or self.block is None:
            return
        self.spoke = True
        self._begin = self._size()
        self._note(-1)

    def over(self) -> None:
        """The block is over: call it where `spoke`, and where it took longer than `LOOK_S`."""
        if self.spoke:
            for stream in self._streams:
                stream.finish()
        elif self._index is None or self._size() == self._before:
            return
        else:
            self._begin = self._before
        size = self._size()
        self._note(size)
        self._before, self.spoke, self.block = size, False, None

    def fields(self) -> dict[str, Any]:
        """Give what a JSON line says of the block that runs."""
        if (block := self.block) is None:
            return {}
        return {
            "task": block.task_id,
            "block": block.block_id,
            "index": list(block.index),
            "attempt": block.attempt,
        }

    def _size(self) -> int:
        return 0 if self._index is None else os.fstat(1).st_size

    def _note(self, end: int) -> None:
        if self._index is None or self.block is None:
            return
        block = self.block
        section = Section(
            task=block.task_id,
            block=block.block_id,
            attempt=block.attempt,
            begin=self._begin,
            end=end,
            at_s=time.time(),
        )
        if self._index_fd < 0:
            self._index_fd = os.open(self._index, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        os.write(self._index_fd, msgspec.json.encode(section) + b"\n")


_installed: list[Output] = []


def began(block: Block) -> None:
    """Say that this block runs in this process, where its output is watched."""
    for output in _installed:
        output.block = block


def ended(seconds: float) -> None:
    """Say that the block that runs here is over."""
    for output in _installed:
        if output.spoke or seconds > LOOK_S:
            output.over()


class _Marked(io.TextIOWrapper):
    """A stream that says when it is written to."""

    def __init__(self, descriptor: int, output: Output) -> None:
        raw = io.FileIO(descriptor, "wb", closefd=False)
        super().__init__(io.BufferedWriter(raw), "utf-8", "backslashreplace", line_buffering=True)
        self._output = output

    def write(self, text: str) -> int:
        self._output.speaks()
        return super().write(text)

    def finish(self) -> None:
        """Write what has no end of line yet."""
        self.flush()


class _JsonLines(io.TextIOBase):
    """A stream of which each line becomes a JSON object."""

    def __init__(self, descriptor: int, output: Output) -> None:
        self._descriptor = descriptor
        self._output = output
        self._rest = ""
        self.buffer = io.FileIO(descriptor, "wb", closefd=False)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def write(self, text: str) -> int:
        self._output.speaks()
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._emit(line)
        return len(text)

    def finish(self) -> None:
        """Write what has no end of line yet."""
        if self._rest:
            self._emit(self._rest)
            self._rest = ""

    def _emit(self, line: str) -> None:
        name = "stdout" if self._descriptor == 1 else "stderr"
        said = json_line("info", line, time.time(), {"stream": name, **self._output.fields()})
        os.write(self._descriptor, said.encode("utf-8", "backslashreplace") + b"\n")


class _Records(logging.Handler):
    """Writes the records of `logging` as JSON lines, with the block that runs."""

    def __init__(self, output: Output) -> None:
        super().__init__()
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        self._output.speaks()
        vars(record).update(self._output.fields())
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001 - arguments that do not fit the message: told, as by any handler, not raised
            self.handleError(record)
        else:
            os.write(2, line.encode("utf-8", "backslashreplace") + b"\n")


def sections_of(logs: Path, task: str, block: int) -> Iterator[tuple[Path, Section]]:
    """Give (log file, section) of what a block wrote into the files of a folder, oldest attempt first."""
    found: list[tuple[float, Path, Section]] = []
    for index in sorted(logs.glob("*" + INDEX)):
        found += [(section.at_s, index.with_suffix(".log"), section) for section in _read(index, task, block)]
    for _, log, section in sorted(found, key=lambda row: row[0]):
        yield log, section


def _read(index: Path, task: str, block: int) -> list[Section]:
    """Give a block's sections in one index, each once, with an end also where it was killed."""
    mark = b'"block":%d,' % block
    kept: dict[int, Section] = {}
    open_: Section | None = None
    for line in index.read_bytes().splitlines():
        if open_ is None and mark not in line:
            continue
        try:
            section = _sections.decode(line)
        except msgspec.DecodeError:  # its process was killed while it wrote
            continue
        if open_ is not None and section.begin != open_.begin:  # what was killed ends where the next one begins
            kept[open_.begin] = msgspec.structs.replace(open_, end=section.begin)
        open_ = None
        if (section.task, section.block) == (task, block):
            first = kept.get(section.begin, section)
            kept[section.begin] = msgspec.structs.replace(section, at_s=first.at_s)
            open_ = section if section.end < 0 else None
    return list(kept.values())
