"""What user code writes, and which block was running when it did.

In text the lines stay as they are written. Beside a log file ``X.log`` grows an index ``X.blocks``: a line when a block
writes its first word, and one with its end when it is over. A block that writes nothing costs nothing. What user code
writes past Python (a program that it starts, a library in C) is found when the block is over, by the size of the file.
Where a block ends with its process, the agent notes the end, and how it was.

In JSON each line that is written becomes an object with run, worker, slot, task, block, index and attempt, and so do
the records of `logging`, unless user code sets that up itself: then its lines are wrapped like any other.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from blockyard.logs import JsonFormatter, json_line
from blockyard.spec.block import Block

LOOK_S = 6e-7
"""A block that took less has written nothing past Python: a write takes longer (0.36 us on tmpfs, where a block that
does nothing takes 0.35). To look costs 0.2 us."""
INDEX = ".blocks"
"""Suffix of the index beside a log file."""
LONGEST_PIECE = 2**16
"""Bytes without an end of line that are kept for one JSON line; more (a progress bar, say) is a line as it is."""


class Section(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A piece of a log file that one attempt of a block wrote."""

    task: str
    block: int
    attempt: int
    begin: int
    """Place of its first byte in the file."""
    end: int = -1
    """Place after its last byte; -1 while it runs, and where its agent died with it."""
    at_s: float = 0.0
    """When its first word was written, seconds since 1970."""
    how: str = ""
    """A sentence where its process ended with it: a signal, an exit, a time limit."""


_sections = msgspec.json.Decoder(Section)


class Output:
    """Standard output and error of a process that runs blocks; `block` is the one that runs, set by who runs it."""

    def __init__(self, form: str = "text", log: Path | None = None, level: str = "info") -> None:
        """Do nothing yet; `form` is ``text`` or ``json``, `log` the file that both go to (None: somebody else's)."""
        self.block: Block | None = None
        self.spoke = False
        """Whether the block that runs has written anything."""
        self.written = 0
        """Size of the log file when the block that runs began."""
        self.lock = threading.RLock()
        """Held while JSON lines are written, so that each stays whole."""
        self._json = form == "json"
        self._level = level
        self._log = log
        self._log_fd = -1
        self._index_fd = -1
        self._streams: list[_Text | _Json] = []

    def install(self) -> None:
        """Take the place of sys.stdout and sys.stderr, before any user code is imported."""
        _line_buffer_c()
        if not self._json and self._log is None:
            return
        if self._log is not None:
            self._log_fd = os.dup(1)
            self.written = self._size()
        make = _Json if self._json else _Text
        self._streams = [make(1, self), make(2, self)]
        sys.stdout, sys.stderr = self._streams
        _installed.append(self)
        os.register_at_fork(after_in_child=self._forked)
        if self._json:
            handler = _Records(self)
            handler.setFormatter(JsonFormatter())
            logging.getLogger().addHandler(handler)
            logging.getLogger().setLevel(self._level.upper())

    def begin(self, block: Block | None = None) -> None:
        """A block begins, after a time in which none ran: what was written meanwhile is not its own.

        Where blocks follow one another, setting `block` is enough.
        """
        self.block, self.written = block, self._size()

    def speaks(self) -> None:
        """Note that the block that runs is about to write; called by the streams."""
        if self.spoke or self.block is None:
            return
        self.spoke = True
        self._note(-1)

    def over(self) -> None:
        """The block is over: call it where `spoke`, and where it took longer than `LOOK_S`."""
        if self.spoke:
            self.finish()
        size = self._size()
        if self.spoke or size != self.written:
            self._note(size)
        self.written, self.spoke, self.block = size, False, None

    def finish(self) -> None:
        """Write what has no end of line yet."""
        for stream in self._streams:
            stream.finish()

    def fields(self) -> dict[str, Any]:
        """Return what a JSON line says of the block that runs."""
        if (block := self.block) is None:
            return {}
        return {
            "task": block.task_id,
            "block": block.block_id,
            "index": list(block.index),
            "attempt": block.attempt,
        }

    def write(self, descriptor: int, line: str) -> None:
        """Write a JSON line, whole."""
        left = memoryview(line.encode("utf-8", "backslashreplace") + b"\n")
        with self.lock:
            while left:
                left = left[os.write(descriptor, left) :]

    def _forked(self) -> None:
        self.lock = threading.RLock()  # another thread may have held it
        self._log = None  # where the block begins and ends in it is noted by the process that runs it

    def _size(self) -> int:
        # Everybody appends, so that nobody minds where the position is; fstat takes three times as long.
        return 0 if self._log is None else os.lseek(self._log_fd, 0, os.SEEK_END)

    def _note(self, end: int) -> None:
        if self._log is None or self.block is None:
            return
        block = self.block
        section = Section(
            task=block.task_id,
            block=block.block_id,
            attempt=block.attempt,
            begin=self.written,
            end=end,
            at_s=time.time(),
        )
        with contextlib.suppress(OSError):  # a full disk: no reason to fail a block
            if self._index_fd < 0:
                self._index_fd = _open_index(self._log)
            os.write(self._index_fd, msgspec.json.encode(section) + b"\n")


_installed: list[Output] = []


def began(block: Block) -> None:
    """Say that this block runs in this process, where its output is watched."""
    for output in _installed:
        output.begin(block)


def ended(seconds: float) -> None:
    """Say that the block that runs here is over."""
    for output in _installed:
        if output.spoke or seconds > LOOK_S:
            output.over()
        output.block = None


def finish() -> None:
    """Write what this process has in the buffers of its standard streams."""
    for output in _installed:
        output.finish()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # user code may have put anything there
            stream.flush()


def _line_buffer_c() -> None:
    """Have what C code prints come out line by line: else the C library keeps it until it has 4 kB of it.

    So it would be found with a later block, and be lost where the process is killed.
    """
    with contextlib.suppress(OSError, ValueError, AttributeError):
        c = ctypes.CDLL(None)
        name = "__stdoutp" if sys.platform == "darwin" else "stdout"
        c.setvbuf(ctypes.c_void_p.in_dll(c, name), None, 1, 0)  # 1: _IOLBF


class _Text(io.TextIOWrapper):
    """A stream that says when it is written to."""

    def __init__(self, descriptor: int, output: Output) -> None:
        super().__init__(_Bytes(descriptor, output), "utf-8", "backslashreplace", line_buffering=True)
        self._output = output

    def write(self, text: str) -> int:
        if not self._output.spoke:
            self._output.speaks()
        return super().write(text)

    def finish(self) -> None:
        """Write what has no end of line yet."""
        with contextlib.suppress(OSError, ValueError):  # a full disk, or user code has closed it
            self.flush()


class _Json(io.TextIOWrapper):
    """A stream of which each line becomes a JSON object."""

    def __init__(self, descriptor: int, output: Output) -> None:
        self._lines = _JsonLines(descriptor, output)
        # Through at once, in the thread that wrote it: the lines of several are kept apart there.
        super().__init__(self._lines, "utf-8", "backslashreplace", write_through=True)

    def finish(self) -> None:
        """Write what has no end of line yet."""
        with contextlib.suppress(OSError):
            self._lines.finish()


class _Bytes(io.BufferedWriter):
    """What is below a text stream (``sys.stdout.buffer``), for those who write bytes."""

    def __init__(self, descriptor: int, output: Output) -> None:
        super().__init__(io.FileIO(descriptor, "wb", closefd=False))
        self._output = output

    def write(self, data: Any) -> int:
        if not self._output.spoke:
            self._output.speaks()
        return super().write(data)


class _JsonLines(io.BufferedIOBase):
    """The same in JSON: what is below `_Json`, where the lines of several threads are kept apart."""

    def __init__(self, descriptor: int, output: Output) -> None:
        self._descriptor = descriptor
        self.name = "<stdout>" if descriptor == 1 else "<stderr>"
        self._output = output
        self._rests: dict[int, bytes] = {}
        """What has no end of line yet, by thread."""

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def write(self, data: Any) -> int:
        if not self._output.spoke:
            self._output.speaks()
        thread = threading.get_ident()
        with self._output.lock:
            *lines, rest = (self._rests.pop(thread, b"") + data).split(b"\n")
            if len(rest) > LONGEST_PIECE:
                lines, rest = [*lines, rest], b""
            if rest:
                self._rests[thread] = rest
            for line in lines:
                self._emit(line)
        return len(data)

    def finish(self) -> None:
        """Write what has no end of line yet, of all threads."""
        with self._output.lock:
            while self._rests:
                _, rest = self._rests.popitem()
                self._emit(rest)

    def _emit(self, line: bytes) -> None:
        text = line.decode("utf-8", "backslashreplace")
        fields = {"stream": self.name.strip("<>"), **self._output.fields()}
        self._output.write(self._descriptor, json_line("info", text, time.time(), fields))


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
            self._output.write(2, line)


# ----- the index as others see it ------------------------------------------------------------------------------------


def note_end(log: Path, section: Section) -> None:
    """Note, for a process that has died, the end of the block that it ran; the file's end is the section's."""
    with contextlib.suppress(OSError):
        _append(log, msgspec.structs.replace(section, end=log.stat().st_size, at_s=section.at_s or time.time()))


def note_last_end(log: Path, how: str) -> None:
    """Note the same where nothing else is known of the block: of the one that spoke last, if it was not over."""
    with contextlib.suppress(OSError, msgspec.DecodeError, ValueError):
        with log.with_suffix(INDEX).open("rb") as index:
            index.seek(max(index.seek(0, os.SEEK_END) - LONGEST_PIECE, 0))
            last = index.read().rstrip(b"\n").rpartition(b"\n")[2]
        section = _sections.decode(last)
        if section.end < 0:
            _append(log, msgspec.structs.replace(section, end=log.stat().st_size, how=how))


def _append(log: Path, section: Section) -> None:
    index_fd = _open_index(log)
    try:
        os.write(index_fd, msgspec.json.encode(section) + b"\n")
    finally:
        os.close(index_fd)


def _open_index(log: Path) -> int:
    return os.open(log.with_suffix(INDEX), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)


def sections_of(logs: Path, task: str, block: int) -> Iterator[tuple[Path, Section]]:
    """Return (log file, section) of what a block wrote into the files of a folder, oldest attempt first."""
    found: list[tuple[float, Path, Section]] = []
    for index in sorted(logs.glob("*" + INDEX)):
        found += [(section.at_s, index.with_suffix(".log"), section) for section in _read(index, task, block)]
    for _, log, section in sorted(found, key=lambda row: row[0]):
        yield log, section


def _read(index: Path, task: str, block: int) -> list[Section]:
    """Return a block's sections in one index, each once, with an end also where it was killed."""
    mark = b'"block":%d,' % block
    kept: dict[tuple[int, int], Section] = {}
    open_: Section | None = None
    for line in index.read_bytes().splitlines():
        if open_ is None and mark not in line:
            continue
        try:
            section = _sections.decode(line)
        except (msgspec.DecodeError, ValueError):  # its process was killed while it wrote
            continue
        mine, key = (section.task, section.block) == (task, block), (section.begin, section.attempt)
        if open_ is not None and not (mine and key == (open_.begin, open_.attempt)):
            # What was killed ends where the next one begins.
            kept[open_.begin, open_.attempt] = msgspec.structs.replace(open_, end=section.begin)
        open_ = None
        if mine:
            first = kept.get(key, section)
            kept[key] = msgspec.structs.replace(section, at_s=first.at_s)
            open_ = section if section.end < 0 else None
    return list(kept.values())
