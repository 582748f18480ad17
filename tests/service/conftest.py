"""One Redis for all service tests of a session; each test has a run of its own name."""

from __future__ import annotations

import itertools
import os
import shutil
from pathlib import Path

import pytest

from blockyard.local.redis import EmbeddedRedis

_numbers = itertools.count(1)

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
REDIS = os.environ.get("BLOCKYARD_REDIS_SERVER") or shutil.which("redis-server")
MISSING = [name for name, found in (("chromium", CHROMIUM), ("redis-server", REDIS)) if not found]


def pytest_collection_modifyitems(config, items):
    """In CI the programs must be there; elsewhere tests that need them are left out, and the report says so."""
    if not MISSING or os.environ.get("CI"):
        return
    here = [item for item in items if Path(__file__).parent in item.path.parents]
    out = [item for item in here if any(mark.args[0] in MISSING for mark in item.iter_markers("program"))]
    if out:
        config.hook.pytest_deselected(items=out)
        items[:] = [item for item in items if item not in out]


def pytest_terminal_summary(terminalreporter):
    for name in MISSING:
        terminalreporter.write_line(f"not run: tests of the services that need {name} (Debian's package)", yellow=True)


@pytest.fixture(scope="session")
def chromium():
    assert CHROMIUM, "there is no chromium; install Debian's package"
    return CHROMIUM


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory):
    """A real server with its append-only file on."""
    with EmbeddedRedis(tmp_path_factory.mktemp("redis"), fsync="everysec") as server:
        yield server


@pytest.fixture
def redis_url(redis_server):
    return redis_server.url


@pytest.fixture
def run_name():
    return f"run-{next(_numbers)}"
