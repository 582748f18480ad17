"""One Redis for all service tests of a session; each test has a run of its own name."""

from __future__ import annotations

import itertools

import pytest

from blockyard.embedded import EmbeddedRedis

_numbers = itertools.count(1)


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
