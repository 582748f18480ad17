"""The file of `--scaling`: the Deployment of each pool and its limits, as the chart writes it."""

from __future__ import annotations

from pathlib import Path

import msgspec

from blockyard.spec.errors import SpecError
from blockyard.spec.yaml_text import read_yaml


class PoolScaling(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One pool."""

    deployment: str
    """Name of the Deployment of its workers."""
    slots: int = 1
    """Blocks that one pod runs at once."""
    autoscale: bool = True
    """False: only the first number of workers is set here."""
    min: int = 0
    """Never fewer while the run lasts."""
    max: int = 10
    """Never more."""
    workers: int = 1
    """How many at first, where `autoscale` is off."""


class Scaling(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All pools of one release."""

    namespace: str
    release: str
    pools: dict[str, PoolScaling]


def read_scaling(path: str) -> Scaling:
    """Read the file. Raises SpecError, with a sentence, where it can't be meant."""
    try:
        value, _ = read_yaml(Path(path).read_bytes(), f"--scaling '{path}'")
        scaling = msgspec.convert(value, Scaling)
    except OSError as error:
        raise SpecError(f"--scaling is '{path}', which cannot be read ({error.strerror})") from None
    except msgspec.ValidationError as error:
        raise SpecError(f"--scaling is '{path}', which is no file of pools: {error}") from None
    for name, pool in scaling.pools.items():
        if not (pool.slots >= 1 and 0 <= pool.min <= pool.max and pool.workers >= 0):
            raise SpecError(
                f"--scaling '{path}': pool '{name}' has slots {pool.slots}, min {pool.min}, max {pool.max}, workers"
                f" {pool.workers}; slots must be at least 1, and 0 <= min <= max"
            )
    return scaling
