"""An agent of a local run that does not reach its scheduler: a person is told why, on the terminal of the run."""

import socket
import time

import pytest

from blockyard.local import run as run_module
from blockyard.local.run import LocalRun
from blockyard.local.services import Services
from blockyard.spec.model import PipelineSpec, RoiSpec, RunSpec, TaskSpec


@pytest.fixture
def elsewhere():
    """A port on which something else listens, that never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize("listens", [True, False])
def test_an_agent_that_does_not_join_is_told_of_with_its_last_words(listens, elsewhere, tmp_path, monkeypatch):
    """Nobody answers there, or somebody else does."""
    if not listens:
        with socket.create_server(("127.0.0.1", 0)) as free:
            elsewhere = free.getsockname()[1]
    made = Services._agent

    def astray(self, *arguments):
        agent = made(self, *arguments)
        agent.argv[agent.argv.index("--scheduler") + 1] = f"127.0.0.1:{elsewhere}"
        return agent

    monkeypatch.setattr(Services, "_agent", astray)
    for name in ("REACH_S", "AGAIN_S"):
        monkeypatch.setattr(run_module, name, 0.5)
    one = RoiSpec((0,), (1,))
    task = TaskSpec(id="work", command=("true",), total_roi=one, read_roi=one, write_roi=one)
    said = []
    with LocalRun(RunSpec(PipelineSpec(name="lost", tasks=(task,))), tmp_path / "run", say=said.append) as local:
        until = time.monotonic() + 100
        words = "did not answer our greeting" if listens else "Connection refused"
        while not any(words in sentence for sentence in said):
            assert time.monotonic() < until, said
            assert local.wait(0.2) is None
    (sentence, *_) = [sentence for sentence in said if words in sentence]
    assert "pool-default has not joined the run" in sentence
    assert f"127.0.0.1:{elsewhere}" in sentence
