"""`blockyard scale` as a person types it: the scheduler's HTTP port, the official client, an API server."""

from __future__ import annotations

import asyncio

import pytest
from scaling_rig import NAME, pool_of, scaled
from scheduler_rig import run_of, serving, settings_of, task, until

from blockyard.cli import main


async def typed(*words):
    """Run the command in a thread of its own; give its exit status."""
    return await asyncio.get_running_loop().run_in_executor(None, main, ["scale", *words])


def test_a_number_is_set_and_kept_until_automation_is_asked_for(redis_url, run_name, monkeypatch, capsys):
    """`scale POOL N` and `scale POOL --auto`, with the address behind either."""

    async def life():
        async with scaled(redis_url, run_name, monkeypatch) as (api, service):
            await until(lambda: api.replicas(NAME) == 8)
            where = f"127.0.0.1:{service._http_port}"
            assert await typed("default", "3", where) == 0
            assert api.replicas(NAME) == 3
            assert pool_of(service).decides == "person"
            assert await typed("default", "0", where) == 0
            assert api.replicas(NAME) == 0
            assert await typed("default", "--auto", where) == 0
            assert pool_of(service).decides == "auto"
            await until(lambda: api.replicas(NAME) == 8)

    asyncio.run(life())
    assert capsys.readouterr().out.splitlines() == [
        "pool default: 3 workers asked for", "pool default: 0 workers asked for", "pool default: the scheduler decides",
    ]  # fmt: skip


def test_what_kubernetes_refuses_is_said_and_done_later(redis_url, run_name, monkeypatch, capsys):
    """Exit status 1 with the rule that is missing; the number is kept, and set when it can be."""

    async def life():
        denied = {("patch", "deployments/scale")}
        async with scaled(redis_url, run_name, monkeypatch, denied=denied) as (api, service):
            assert await typed("default", "3", f"127.0.0.1:{service._http_port}") == 1
            api.denied.clear()
            await until(lambda: api.replicas(NAME) == 3)

    asyncio.run(life())
    said = capsys.readouterr()
    assert said.out == "pool default: 3 workers asked for\n"
    assert said.err.startswith("not done yet, and tried again: the Kubernetes API forbids it (403:")
    assert 'cannot patch resource "deployments/scale"' in said.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("defualt", "3"), "there is no pool 'defualt'; did you mean 'default'?"),
        (("default", "many"), "'many' is no number of workers"),
        (("default", "-1"), "'-1' is no number of workers"),
        (("default",), "is no number of workers"),
        (("default", "3", "--auto"), "give a number of workers or --auto, not both"),
    ],
)
def test_a_request_that_cannot_be_meant_is_a_sentence(redis_url, run_name, monkeypatch, capsys, words, says):
    """Exit status 2, and nothing is scaled."""

    async def life():
        async with scaled(redis_url, run_name, monkeypatch, replicas=8) as (api, service):
            assert await typed(*words[:2], f"127.0.0.1:{service._http_port}", *words[2:]) == 2
            assert api.replicas(NAME) == 8

    asyncio.run(life())
    assert says in capsys.readouterr().err


def test_a_wrong_token_scales_nothing(redis_url, run_name, capsys):
    """Nor does none; the sentence says how to give it."""

    async def life():
        async with serving(settings_of(run_of(run_name, task()), redis_url, token="secret")) as service:
            where = f"127.0.0.1:{service._http_port}"
            assert await typed("default", "3", where) == 2
            assert "token" in capsys.readouterr().err
            assert await typed("default", "3", where, "--token", "wrong") == 2
            assert "token" in capsys.readouterr().err
            assert await typed("default", "3", where, "--token", "secret") == 2
            assert "not scaled by its scheduler" in capsys.readouterr().err

    asyncio.run(life())


def test_without_a_scheduler_it_says_so(capsys, tmp_path):
    """A closed port, and a folder that is no run."""
    assert main(["scale", "default", "3", "127.0.0.1:1"]) == 2
    assert "no scheduler answers at http://127.0.0.1:1" in capsys.readouterr().err
    assert main(["scale", "default", "3", str(tmp_path)]) == 2
    assert "there is no run" in capsys.readouterr().err
