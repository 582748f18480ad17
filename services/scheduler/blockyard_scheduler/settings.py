"""The settings of one scheduler: flags and variables, the files they name, and whether they go together."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from blockyard.core.scheduler import CoreSettings
from blockyard.plan.declared import by_hand
from blockyard.spec.errors import SpecError
from blockyard.spec.model import RunSpec
from blockyard.spec.settings import parse_settings
from blockyard.spec.targets import choose
from blockyard.spec.validate import validate_run
from blockyard_scheduler.scaling.config import Scaling, read_scaling


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What one scheduler is told; see `blockyard.spec.settings` for what each means."""

    run: RunSpec
    redis_url: str
    redis_password: str | None = None
    host: str = "127.0.0.1"
    port: int = 8470
    http_host: str = "127.0.0.1"
    http_port: int = 8471
    token: str = ""
    metrics_token: bool = False
    tls_cert: str = ""
    tls_key: str = ""
    http_tls: bool = False
    run_dir: Path | None = None
    home: Path | None = None
    """Where relative paths in parameters begin, as far as that is known here."""
    advertise: str = ""
    lease_s: float = 60.0
    grace_s: float = 5.0
    retry_backoff_s: float = 0.5
    heartbeat_s: float = 2.0
    lock_s: float = 5.0
    fresh: bool = False
    accept_changes: bool = False
    exit_when_done: bool = False
    keep_going: bool = False
    is_local: bool = False
    """A run on one machine gave the specification: its workers are all there."""
    scaling: Scaling | None = None
    history_blocks: int = 2_000_000
    log_format: str = "text"
    log_level: str = "info"

    @property
    def core(self) -> CoreSettings:
        """What the core needs to know."""
        pools = self.scaling.pools.values() if self.scaling is not None else ()
        return CoreSettings(
            lease_s=self.lease_s,
            grace_s=self.grace_s,
            retry_backoff_s=self.retry_backoff_s,
            ready_ahead=2 * sum(pool.max * pool.slots for pool in pools),
            fail_fast=not self.keep_going,
            fail_fast_settle_s=0.0 if self.is_local else CoreSettings().fail_fast_settle_s,
        )

    def address(self, port: int) -> str:
        """Return HOST:PORT under which workers reach this scheduler, which listens on `port`."""
        if self.advertise:
            return self.advertise
        host = socket.gethostname() if self.host in ("", "0.0.0.0", "::") else self.host  # noqa: S104 - recognised, not bound
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def page(self, port: int, http_port: int) -> str:
        """Return the address of this scheduler's page for a person who comes from another one's; ports as `address`."""
        return f"{'https' if self.http_tls else 'http'}://{self.http_reached_as(port)}:{http_port}/"

    def http_reached_as(self, port: int) -> str:
        """Return the host of this scheduler's HTTP side as it stands in an address; port as `address`."""
        everywhere = self.http_host in ("", "0.0.0.0", "::")  # noqa: S104 - recognised, not bound
        host = self.address(port).rpartition(":")[0] if everywhere else self.http_host
        return f"[{host}]" if ":" in host and not host.startswith("[") else host


def read_settings(argv: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """Return the settings of a command line. Raises SpecError with a sentence for what cannot be meant."""
    given = parse_settings("scheduler", argv, environ)
    if not given.redis_url:
        raise SpecError("no Redis is given: set --redis-url (or BLOCKYARD_REDIS_URL) to redis://HOST:PORT/DB")
    token = given.token or _secret(given.token_file, "--token-file")
    http_host = given.http_host or given.host
    listened = [("--host", given.host)] + ([("--http-host", http_host)] if given.http_port >= 0 else [])
    for flag, host in listened:
        if not token and not is_loopback(host):
            raise SpecError(
                f"{flag} is '{host}', which others can reach, and there is no token: give one with --token-file, or"
                " listen on 127.0.0.1"
            )
    if bool(given.tls_cert) != bool(given.tls_key) or (given.http_tls and not given.tls_cert):
        raise SpecError("TLS needs both files: give the certificate with --tls-cert and its key with --tls-key")
    if given.heartbeat_s * 2 > given.lease_s:
        raise SpecError(
            f"--heartbeat-s is {given.heartbeat_s:g} and --lease-s {given.lease_s:g}: a lease must last at least two"
            " heartbeats"
        )
    return Settings(
        run=_run(given.pipeline, given.run_spec, given.only, given.request),
        redis_url=given.redis_url,
        redis_password=_secret(given.redis_password_file, "--redis-password-file") or None,
        host=given.host,
        port=given.port,
        http_host=http_host,
        http_port=given.http_port,
        token=token,
        metrics_token=given.metrics_token,
        tls_cert=given.tls_cert,
        tls_key=given.tls_key,
        http_tls=given.http_tls,
        run_dir=Path(given.run_dir) if given.run_dir else None,
        home=Path(given.work_dir or Path(given.pipeline).parent).absolute(),
        advertise=given.advertise,
        lease_s=given.lease_s,
        grace_s=given.grace_s,
        retry_backoff_s=given.retry_backoff_s,
        heartbeat_s=given.heartbeat_s,
        lock_s=given.lock_s,
        fresh=given.fresh,
        accept_changes=given.accept_changes,
        exit_when_done=given.exit_when_done,
        keep_going=given.keep_going,
        is_local=bool(given.run_spec),
        scaling=read_scaling(given.scaling) if given.scaling else None,
        history_blocks=given.history_blocks,
        log_format=given.log_format,
        log_level=given.log_level,
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a listener on `host`.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0"), is_loopback("")
    (True, True, False, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _run(pipeline: str, run_spec: str, only: str, request: str) -> RunSpec:
    if bool(pipeline) == bool(run_spec):
        raise SpecError("give the pipeline file with --pipeline (a local run gives --run-spec instead)")
    if run_spec and (only or request):
        raise SpecError("--only and --request are for --pipeline: a run specification says itself what is wanted")
    if pipeline:
        from blockyard.spec.load import load_pipeline  # YAML takes a while to load, and local runs need none

        return by_hand(choose(load_pipeline(pipeline), only, request))
    try:
        run = msgspec.json.decode(Path(run_spec).read_bytes(), type=RunSpec)
    except OSError as error:
        raise SpecError(f"--run-spec is '{run_spec}', which cannot be read ({error.strerror})") from None
    except (msgspec.DecodeError, ValueError) as error:
        raise SpecError(f"--run-spec is '{run_spec}', which is no run specification: {error}") from None
    validate_run(run)
    return run


def _secret(path: str, flag: str) -> str:
    if not path:
        return ""
    try:
        text = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{flag} is '{path}', which cannot be read ({error})") from None
    if not text:
        raise SpecError(f"{flag} is '{path}', which is empty")
    return text
