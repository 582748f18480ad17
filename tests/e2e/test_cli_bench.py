"""`blockyard bench`: blocks that do nothing, measured; nothing is left behind."""

import json

import pytest
import redis

from blockyard.cli.app import main
from blockyard.local.redis import EmbeddedRedis


def bench(capsys, *words):
    status = main(["bench", *words])
    return status, capsys.readouterr()


@pytest.mark.parametrize("shape", ["independent", "halo", "chain", "chain-halo"])
def test_every_block_of_a_shape_is_done_and_counted(shape, tmp_path, capsys):
    """The rate is that of the blocks asked for, as near as a cube comes to it."""
    words = ("--shape", shape, "--blocks", "250", "--workers", "2", "--dir", str(tmp_path), "--json")
    status, printed = bench(capsys, *words)
    assert status == 0
    (run,) = json.loads(printed.out)["runs"]
    assert run["blocks"] in (216, 250)
    assert 0 < run["first_block_s"] < run["whole_s"]
    assert run["blocks_a_s"] > 0
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_in_a_redis_of_the_users(tmp_path, capsys):
    """A benchmark is a guest there: its keys go with it, those of others stay."""
    with EmbeddedRedis(tmp_path / "redis", "no") as server, redis.Redis.from_url(server.url) as client:
        client.set("blockyard:{mine}:spec", "kept")
        words = ("--shape", "chain", "--blocks", "16", "--workers", "1", "--dir", str(tmp_path))
        status, printed = bench(capsys, *words, "--redis-url", server.url)
        assert status == 0
        assert "chain of two tasks" in printed.out
        assert client.keys() == [b"blockyard:{mine}:spec"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--blocks", "0"], "--blocks is 0; it must be at least 1"),
        (["--workers", "-1"], "--workers is -1; it must be at least 1"),
        (["--dir", "/nowhere/at/all"], "--dir /nowhere/at/all cannot be written"),
        (["--redis-url", "redis://127.0.0.1:1/0"], "Redis at 127.0.0.1:1 does not answer"),
    ],
)
def test_what_cannot_be_measured_is_told_in_a_sentence(words, sentence, tmp_path, capsys):
    """Exit status 2, no traceback."""
    status, printed = bench(
        capsys, "--shape", "chain", *(["--dir", str(tmp_path)] if "--dir" not in words else []), *words
    )
    assert status == 2
    assert sentence in printed.err
    assert "Traceback" not in printed.err
