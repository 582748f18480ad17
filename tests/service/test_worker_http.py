"""Health and metrics of an agent."""

import re
import urllib.error
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families
from worker_peer import AgentProcess, FakeScheduler, block_task, finish_run, wait_for

from blockyard.wire.messages import Refused


def port_of(agent):
    return wait_for(lambda: re.search(r"metrics on 127\.0\.0\.1, port (\d+)", agent.output())).group(1)


def get(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
        return answer.read().decode()


def scraped(port):
    """All samples by name and label."""
    families = text_string_to_metric_families(get(port, "/metrics"))
    return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "user_code.py").write_text("def f(block):\n    return block.block_id % 2\n")
    return tmp_path


def test_metrics_count_what_became_of_blocks(folder):
    """By outcome; slots by state."""
    with (
        FakeScheduler((block_task(function="user_code:f"),)) as scheduler,
        AgentProcess(scheduler, folder, "--http-port", "0", slots=2) as agent,
    ):
        scheduler.add("work", range(10))
        scheduler.finish(range(10))
        port = port_of(agent)
        assert get(port, "/healthz") == "ok\n"
        assert get(port, "/readyz") == "ready\n"
        samples = scraped(port)
        assert samples["blockyard_worker_blocks_total", "success"] == 5
        assert samples["blockyard_worker_blocks_total", "failed"] == 5
        assert sum(value for (name, *_), value in samples.items() if name == "blockyard_worker_slots") == 2
        assert samples["blockyard_worker_connected",] == 1
        assert finish_run(scheduler, agent) == 0


def test_an_agent_that_no_scheduler_has_taken_is_healthy_but_not_ready(folder):
    """Restarting it would not help."""
    with FakeScheduler((block_task(function="user_code:f"),)) as scheduler:
        scheduler.refusal = Refused("loading", "busy", again=True)
        with AgentProcess(scheduler, folder, "--http-port", "0") as agent:
            port = port_of(agent)
            assert get(port, "/healthz") == "ok\n"
            with pytest.raises(urllib.error.HTTPError) as caught:
                get(port, "/readyz")
            with caught.value as error:
                assert error.code == 503


def test_a_taken_port_costs_the_metrics_and_not_the_blocks(folder):
    """Several workers on one machine have one default port between them."""
    with FakeScheduler((block_task(function="user_code:f"),)) as scheduler:
        taken = scheduler.address.rpartition(":")[2]
        with AgentProcess(scheduler, folder, "--http-port", taken) as agent:
            scheduler.add("work", [0])
            scheduler.result(0)
            assert finish_run(scheduler, agent) == 0
        assert "no metrics" in agent.output()
