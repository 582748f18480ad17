"""The sockets of a scheduler: listening on a port, and how many connections the system lets it have."""

from __future__ import annotations

import resource

from tornado.netutil import bind_sockets
from tornado.tcpserver import TCPServer

from blockyard.spec.errors import SpecError

SPARE_FILES = 64
"""Of the files this process may open, so many are kept for other things than workers."""


def listen(server: TCPServer, host: str, port: int, flag: str) -> int:
    """Listen, and give the port. Raises SpecError, with a sentence, where that is not possible."""
    try:
        sockets = bind_sockets(port, host)
    except OSError as error:
        raise SpecError(
            f"{flag}: cannot listen on {host or 'any address'}, port {port} ({error.strerror or error}); end what uses"
            " it, or give another port (0: any free one)"
        ) from None
    server.add_sockets(sockets)
    found: int = sockets[0].getsockname()[1]
    return found


def most_connections() -> int:
    """Return how many workers may connect. Raises SpecError where the limit of open files leaves room for none."""
    files = _most_files()
    if files <= SPARE_FILES:
        raise SpecError(
            f"a scheduler may open only {files} files here, and needs {SPARE_FILES} and one for each worker; raise the"
            f" limit, as with: ulimit -n {16 * SPARE_FILES}"
        )
    return files - SPARE_FILES


def _most_files() -> int:
    """Raise the limit of open files as far as we may, and give it: one for each worker."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard if hard != resource.RLIM_INFINITY else max(soft, 65536)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (ValueError, OSError):  # some systems refuse their own hard limit
        return soft
    return wanted
