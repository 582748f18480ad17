"""What a user's own worker is told when it is started: where the scheduler is, and which task it is for."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from blockyard.client.tls import Trust, trust
from blockyard.spec.errors import ConnectError
from blockyard.spec.settings import TRUTHS

VARIABLE = "BLOCKYARD_CONTEXT"
DAISY_VARIABLE = "DAISY_CONTEXT"
"""Holds the same: scripts that build a command for a batch system or a container hand this one on, by name."""
TOKEN_VARIABLES = ("BLOCKYARD_TOKEN", "BLOCKYARD_TOKEN_FILE")
NUMBERS = ("port", "worker_id", "num_workers")
POSITIONAL = ("hostname", "port", "task_id", "worker_id", "num_workers")


class Context:
    """Named values, which travel in the environment variable ``BLOCKYARD_CONTEXT``, and in ``DAISY_CONTEXT``.

    ``hostname`` and ``port`` of the scheduler, ``task_id``, ``worker_id`` (0, 1, ... among the ``num_workers``
    processes of one agent), ``worker`` (what the scheduler knows this worker by), ``token_file``; for TLS ``tls``,
    ``tls_ca`` (a file) and ``tls_name``, as the settings of a worker. Others may be added. A function of a block finds
    one too, to choose a GPU by ``worker_id``, say: that of its slot, in which no Client can be made.
    Values are read as ``context["port"]``, ``context.get("port")`` and ``context.port``.

    >>> context = Context("localhost", 8470, "segment", worker_id=3, num_workers=4)
    >>> context.to_env()
    'hostname=localhost:port=8470:task_id=segment:worker_id=3:num_workers=4'
    >>> Context.from_env({"BLOCKYARD_CONTEXT": context.to_env()}).port
    8470
    """

    ENV_VARIABLE = VARIABLE

    def __init__(self, *values: Any, **named: Any) -> None:
        """Take `hostname`, `port`, `task_id`, `worker_id` and `num_workers`, by position or name, and any other."""
        if len(values) > len(POSITIONAL):
            raise TypeError(f"Context takes at most {len(POSITIONAL)} values by position, not {len(values)}")
        self._values: dict[str, Any] = dict(zip(POSITIONAL, values, strict=False))
        for name, value in named.items():
            if name in self._values:
                raise TypeError(f"Context got '{name}' twice")
            self._values[name] = value

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Context:
        """Read the context of this process. Raises ConnectError where there is none, or where it is malformed."""
        environ = os.environ if environ is None else environ
        variable = VARIABLE if environ.get(VARIABLE) else DAISY_VARIABLE
        text = environ.get(variable)
        if not text:
            raise ConnectError(
                f"neither {VARIABLE} nor {DAISY_VARIABLE} is set: Client() belongs into a worker that blockyard has"
                " started (the function of no argument of a task, or a process that it starts); elsewhere give"
                " Client(Context(hostname=..., port=..., task_id=...))"
            )
        context = cls()
        for pair in text.split(":"):
            name, equals, value = pair.partition("=")
            if not equals:
                raise ConnectError(f"{variable} is '{text}', where '{pair}' is not name=value")
            context[_plain(name)] = _plain(value)
        return context

    @classmethod
    def of_slot(cls, hostname: str, port: int, slots: int, worker: str = "") -> Context:
        """Return the context that functions of a block find; `name_task` adds the task."""
        return cls(hostname, port, worker_id=0, num_workers=slots, worker=worker, slot=1)

    def variables(self) -> dict[str, str]:
        """Return the environment variables that carry it; scripts written for daisy look for the second one."""
        return dict.fromkeys((VARIABLE, DAISY_VARIABLE), self.to_env())

    def to_env(self) -> str:
        """Return the value of the environment variable: ``name=value`` pairs between colons, percent-encoded."""
        return ":".join(f"{_quoted(name)}={_quoted(value)}" for name, value in self._values.items())

    def token(self, environ: Mapping[str, str] | None = None) -> str:
        """Return the scheduler's token: from ``token_file``, ``token``, or the variables that a worker has too.

        Raises ConnectError for a file that cannot be read.
        """
        environ = os.environ if environ is None else environ
        direct, file = (environ.get(variable, "") for variable in TOKEN_VARIABLES)
        path = self.get("token_file") or ("" if direct or self.get("token") else file)
        if not path:
            return str(self.get("token") or direct)
        try:
            return Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConnectError(f"the token file {path} cannot be read: {error}") from error

    def trust(self, environ: Mapping[str, str] | None = None) -> Trust | None:
        """Return how to connect by TLS, or None for without.

        From ``tls``, ``tls_ca`` and ``tls_name``, or the variables that a worker has too. Raises SpecError for a file
        that holds no certificates.
        """
        environ = os.environ if environ is None else environ
        tls, ca, name = (
            str(self.get(key) or environ.get(f"BLOCKYARD_{key.upper()}", "")) for key in ("tls", "tls_ca", "tls_name")
        )
        return trust(tls=TRUTHS.get(tls.lower(), bool(tls)), ca=ca, name=name)

    def copy(self) -> Context:
        """Return a context with the same values."""
        return Context(**self._values)

    def get(self, name: str, default: Any = None) -> Any:
        """Return a value, or `default`."""
        return self._values.get(name, default)

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __setitem__(self, name: str, value: Any) -> None:
        if name in NUMBERS:
            try:
                value = int(value)
            except ValueError:
                raise ConnectError(f"'{name}' of {VARIABLE} is '{value}', which is not a whole number") from None
        self._values[name] = value

    def __getattr__(self, name: str) -> Any:
        values = self.__dict__.get("_values", {})
        if name in values:
            return values[name]
        raise AttributeError(f"the context has no '{name}'; it has {', '.join(values) or 'nothing'}")

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Context) and self._values == other._values

    __hash__ = None  # type: ignore[assignment]  # it can be changed

    def __repr__(self) -> str:
        return f"Context({', '.join(f'{k}={v!r}' for k, v in self._values.items() if k != 'token')})"


def name_task(task_id: str, environ: MutableMapping[str, str] | None = None) -> None:
    """Say in the context of this process, that of a slot, which task's blocks it runs now."""
    environ = os.environ if environ is None else environ
    if environ.get(VARIABLE):
        context = Context.from_env(environ)
        context["task_id"] = task_id
        environ.update(context.variables())


@contextmanager
def serial_context() -> Iterator[None]:
    """Make this process the only slot of a run that has no scheduler; afterwards the environment is as before."""
    before = {name: os.environ.get(name) for name in (VARIABLE, DAISY_VARIABLE)}
    os.environ.update(Context.of_slot("localhost", 0, 1).variables())
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _quoted(value: object) -> str:
    return quote(str(value), safe="/", errors="surrogateescape")  # a path may have bytes that are no text


def _plain(text: str) -> str:
    return unquote(text, errors="surrogateescape")
