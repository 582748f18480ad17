"""Every setting of scheduler and worker: one table with names, defaults and reasons.

``--http-port`` on the command line is ``BLOCKYARD_HTTP_PORT`` in the environment; a flag beats a variable beats the
default.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting; `flag` without dashes."""

    flag: str
    default: Any
    kind: type
    help: str
    services: tuple[str, ...] = ("scheduler",)

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
    Setting("port", 8470, int, "block server port; 0: any free one"),
    Setting("http-host", "", str, "address of the HTTP server; empty: that of --host", BOTH),
    Setting("http-port", 8471, int, "port of page, API, /metrics, /healthz, /readyz; 0: any; -1: none", BOTH),
    Setting("redis-url", "", str, "redis://[:password@]host:port/db, rediss:// for TLS, or unix://path"),
    Setting("token", "", str, "shared secret of scheduler and workers", BOTH),
    Setting("token-file", "", str, "file that holds the token", BOTH),
    Setting("run-dir", "", str, "folder of a local run: its Redis, logs and address files", BOTH),
    Setting("advertise", "", str, "HOST:PORT under which workers reach this scheduler; empty: host name and port"),
    Setting("lease-s", 60.0, float, "how long a lease lasts without a heartbeat"),
    Setting("grace-s", 5.0, float, "added to the lease time before the scheduler gives a block to another worker"),
    Setting("heartbeat-s", 2.0, float, "how often workers send a heartbeat"),
    Setting("lock-s", 5.0, float, "how long the leader's lock in Redis lasts without renewal"),
    Setting("fresh", False, bool, "start the run over, dropping what Redis holds of it"),
    Setting("accept-changes", False, bool, "go on although parameters, requirements or the conflict flag changed"),
    Setting("exit-when-done", False, bool, "end the scheduler when the run has ended"),
    Setting("scheduler", "127.0.0.1:8470", str, "HOST:PORT of the scheduler", ("worker",)),
    Setting("pool", "default", str, "the pool this worker belongs to", ("worker",)),
    Setting("slots", 1, int, "processes that run blocks side by side", ("worker",)),
    Setting("task", "", str, "only blocks of this task", ("worker",)),
    Setting("recycle-after", 0, int, "replace a slot after this many blocks (cures leaks); 0: never", ("worker",)),
    Setting("drain-s", 25.0, float, "time that running blocks get to finish after SIGTERM", ("worker",)),
    Setting("module-path", "", str, "folders put before the module path of user code, separated by ':'", ("worker",)),
    Setting("log-dir", "", str, "folder for one log file a slot; empty: standard error", ("worker",)),
    Setting("log-format", "text", str, "text or json", BOTH),
    Setting("log-level", "info", str, "debug, info, warning or error", BOTH),
)
