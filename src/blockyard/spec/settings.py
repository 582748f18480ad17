"""Every setting of scheduler and worker: one table with names, defaults and reasons.

``--http-port`` on the command line is ``BLOCKYARD_HTTP_PORT`` in the environment; a flag beats a variable beats the
default. `parse_settings` reads both and refuses what cannot be meant with one sentence.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from blockyard.spec.errors import SpecError, nearest


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting; `flag` without dashes."""

    flag: str
    default: Any
    kind: type
    help: str
    services: tuple[str, ...] = ("scheduler",)
    choices: tuple[str, ...] = ()
    """The only values allowed; empty: any."""
    least: float | None = None
    """The smallest number allowed."""
    most: float | None = None
    """The largest number allowed."""

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return "BLOCKYARD_" + self.flag.replace("-", "_").upper()

    @property
    def field(self) -> str:
        """Its attribute name."""
        return self.flag.replace("-", "_")


BOTH = ("scheduler", "worker")

SETTINGS: tuple[Setting, ...] = (
    Setting("pipeline", "", str, "pipeline file (YAML) that the scheduler runs"),
    Setting("run-spec", "", str, "run specification (JSON) made by a local run, instead of --pipeline"),
    Setting("request", "", str, "only blocks that write into this ROI of the last tasks, 'begin:end,begin:end,...'"),
    Setting("only", "", str, "only this task and what it requires"),
    Setting("host", "127.0.0.1", str, "address to listen on; anything but loopback needs a token"),
    Setting("port", 8470, int, "block server port; 0: any free one", least=0, most=65535),
    Setting("http-host", "", str, "address of the HTTP server; empty: that of --host", BOTH),
    Setting(
        "http-port",
        8471,
        int,
        "port of page, API, /metrics, /healthz, /readyz; 0: any; -1: none",
        BOTH,
        least=-1,
        most=65535,
    ),
    Setting("tls-cert", "", str, "certificate of the block port (PEM, its chain behind it); workers must then use TLS"),
    Setting("tls-key", "", str, "private key of --tls-cert (PEM, without passphrase)"),
    Setting("http-tls", False, bool, "the HTTP port speaks TLS too (https://), with the certificate of --tls-cert"),
    Setting("redis-url", "", str, "redis://[:password@]host:port/db, rediss:// for TLS, or unix://path"),
    Setting("redis-password-file", "", str, "file that holds the password of Redis, kept out of --redis-url"),
    Setting("token", "", str, "shared secret of scheduler and workers", BOTH),
    Setting("token-file", "", str, "file that holds the token", BOTH),
    Setting("metrics-token", False, bool, "/metrics wants the token too, as all of /api does"),
    Setting("run-dir", "", str, "folder of the run, where commands find its address and how it ended", BOTH),
    Setting("advertise", "", str, "HOST:PORT under which workers reach this scheduler; empty: host name and port"),
    Setting("lease-s", 60.0, float, "how long a lease lasts without a heartbeat", least=0.1),
    Setting(
        "grace-s", 5.0, float, "added to the lease time before the scheduler gives a block to another worker", least=0
    ),
    Setting(
        "retry-backoff-s",
        0.5,
        float,
        "wait before a failed block's first retry; doubles with each, with jitter",
        least=0,
    ),
    Setting("heartbeat-s", 2.0, float, "how often workers send a heartbeat", least=0.01),
    Setting("lock-s", 5.0, float, "how long the leader's lock in Redis lasts without renewal", least=0.1),
    Setting("fresh", False, bool, "start the run over, dropping what Redis holds of it"),
    Setting("accept-changes", False, bool, "go on although parameters, requirements or the conflict flag changed"),
    Setting("exit-when-done", False, bool, "end the scheduler when the run has ended"),
    Setting(
        "keep-going",
        False,
        bool,
        "try all blocks of a task, also where its first 10 attempts all failed with the same error; without it such a"
        " run is paused",
    ),
    Setting(
        "history-blocks",
        2_000_000,
        int,
        "record duration, attempt, worker and time of up to so many blocks (10 bytes each), of more only by region;"
        " 0: of none",
        least=0,
    ),
    Setting("scaling", "", str, "file (YAML) with the Deployment of each pool and its limits; empty: scale nothing"),
    Setting("scheduler", "127.0.0.1:8470", str, "HOST:PORT of the scheduler", ("worker",)),
    Setting("tls", False, bool, "connect by TLS and trust the system's certificate authorities", ("worker",)),
    Setting("tls-ca", "", str, "connect by TLS and trust the certificate authorities in this file (PEM)", ("worker",)),
    Setting("tls-name", "", str, "name in the scheduler's certificate; empty: the host of --scheduler", ("worker",)),
    Setting("pool", "default", str, "the pool this worker belongs to", ("worker",)),
    Setting("slots", 1, int, "processes that run blocks side by side", ("worker",), least=1),
    Setting("task", "", str, "only blocks of this task", ("worker",)),
    Setting(
        "recycle-after", 0, int, "replace a slot after this many blocks (cures leaks); 0: never", ("worker",), least=0
    ),
    Setting("drain-s", 25.0, float, "time that running blocks get to finish after SIGTERM", ("worker",), least=0),
    Setting("give-up-s", 0.0, float, "leave when no scheduler was there for so long; 0: never", ("worker",), least=0),
    Setting(
        "module-path",
        "",
        str,
        "folders in which user code is looked for before what is installed, separated by ':' (or a JSON list, for names"
        " with ':'); the working directory follows them",
        ("worker",),
    ),
    Setting(
        "work-dir",
        "",
        str,
        "folder in which blocks run: relative paths in parameters begin there; empty: that of --pipeline, of a worker"
        " the one where it was started",
        BOTH,
    ),
    Setting("log-dir", "", str, "folder for one log file a slot; empty: standard error", ("worker",)),
    Setting("log-format", "text", str, "text or json", BOTH, choices=("text", "json")),
    Setting(
        "log-level",
        "info",
        str,
        "debug, info, warning or error",
        BOTH,
        choices=("debug", "info", "warning", "error"),
    ),
)


def parse_settings(service: str, argv: Sequence[str], environ: Mapping[str, str]) -> argparse.Namespace:
    """Return the settings of `service` (``"scheduler"`` or ``"worker"``), one attribute each (``http_port``).

    `argv` comes without the program's name; ``--help`` prints and raises SystemExit(0). Raises SpecError, with a
    sentence that names the flag or variable, the value and what would do.

    >>> parse_settings("worker", ["--slots", "2"], {"BLOCKYARD_SLOTS": "4", "BLOCKYARD_POOL": "gpu"}).slots
    2
    >>> parse_settings("worker", ["--slots", "no"], {})
    Traceback (most recent call last):
        ...
    blockyard.spec.errors.SpecError: --slots is 'no', which is not a whole number
    """
    table = [setting for setting in SETTINGS if service in setting.services]
    given = vars(_parser(service, table).parse_args(list(argv)))
    values = {}
    for setting in table:
        if (value := given[setting.field]) is not None:
            values[setting.field] = _value(setting, value, "--" + setting.flag)
        elif (value := _from_environment(setting, environ)) is not None:
            values[setting.field] = _value(setting, value, setting.variable)
        else:
            values[setting.field] = setting.default
    return argparse.Namespace(**values)


class _Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises its complaints instead of ending the process."""

    def error(self, message: str) -> NoReturn:
        raise SpecError(f"{message}; '{self.prog} --help' lists the settings")

    def parse_args(self, args: Sequence[str]) -> argparse.Namespace:  # type: ignore[override]
        namespace, unknown = self.parse_known_args(args)
        for argument in unknown:
            if argument.startswith("--"):
                flag = argument.split("=")[0]
                raise SpecError(f"unknown setting '{flag}'{nearest(flag, self._option_string_actions)}")
            raise SpecError(f"unexpected argument '{argument}'; '{self.prog} --help' lists the settings")
        return namespace


def _parser(service: str, table: Sequence[Setting]) -> _Parser:
    parser = _Parser(
        prog=f"blockyard {service}",
        description="Every flag is a variable too: --http-port is BLOCKYARD_HTTP_PORT. A flag beats a variable.",
        allow_abbrev=False,
    )
    for setting in table:
        shown = "" if setting.default in ("", False) else f" (default: {setting.default})"
        text = (setting.help + shown).replace("%", "%%")
        if setting.kind is bool:
            parser.add_argument("--" + setting.flag, action=argparse.BooleanOptionalAction, default=None, help=text)
        else:
            parser.add_argument("--" + setting.flag, metavar=setting.kind.__name__.upper(), default=None, help=text)
    return parser


def _from_environment(setting: Setting, environ: Mapping[str, str]) -> str | None:
    """Return the variable's value, or None where it is unset or empty.

    Kubernetes gives every pod of a namespace with a Service called ``blockyard`` a variable
    ``BLOCKYARD_PORT=tcp://...``; that is nobody's setting.
    """
    value = environ.get(setting.variable, "")
    return None if value == "" or (setting.kind is int and value.startswith("tcp://")) else value


TRUTHS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
NOT_A = {int: "a whole number", float: "a number", bool: "one of " + ", ".join(TRUTHS)}


def _value(setting: Setting, text: str | bool, name: str) -> Any:
    """Convert and check one value; `name` is how the user gave it."""
    try:
        value = TRUTHS[str(text).lower()] if setting.kind is bool else setting.kind(text)
    except (ValueError, KeyError):
        raise SpecError(f"{name} is '{text}', which is not {NOT_A[setting.kind]}") from None
    if setting.choices and value not in setting.choices:
        raise SpecError(f"{name} is '{value}'{nearest(str(value), setting.choices)}")
    # Written so that NaN is refused as well.
    if setting.least is not None and not value >= setting.least:
        raise SpecError(f"{name} is {value}; it must be at least {setting.least:g}")
    if setting.most is not None and not value <= setting.most:
        raise SpecError(f"{name} is {value}; it must be at most {setting.most:g}")
    return value
