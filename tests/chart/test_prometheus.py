"""A real Prometheus scrapes a real run: each query of the dashboard has data, each rule is evaluated."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from contextlib import ExitStack, contextmanager

import pytest
import yaml
from chart import TINY
from test_monitoring import ALERTS, dashboard, queries

from blockyard.local.run import LocalRun
from blockyard.spec.load import load_pipeline
from blockyard.spec.model import RunSpec
from blockyard.testing.chaos.cluster import free_port

pytestmark = pytest.mark.program("prometheus")

PATIENCE_S = 60.0
IDLE = {
    "blockyard_scale_actions_total": "nobody scales a local run",
    "blockyard_kubernetes_requests_total": "no Kubernetes is asked",
    "blockyard_leases_expired_total": "no worker is lost",
    "blockyard_stale_releases_total": "no worker comes back late",
    "blockyard_store_errors_total": "Redis works",
}
"""Counters of what does not happen in this run: zeros, which the queries must give all the same."""

PIPELINE = """\
name: seen
tasks:
  - id: mark
    function: seen_work:mark
    total_roi: {offset: [0], shape: [29999]}
    read_roi: {offset: [0], shape: [10]}
    write_roi: {offset: [0], shape: [10]}
    fit: shrink
    max_retries: 1
  - id: late
    function: seen_work:mark
    total_roi: {offset: [0], shape: [29990]}
    read_roi: {offset: [0], shape: [10]}
    write_roi: {offset: [0], shape: [10]}
    requires: [mark]
"""
WORK = """\
import time

def mark(block):
    time.sleep(0.05)
    if block.task_id == "mark" and block.block_id % 5 == 0 and block.attempt == 1:
        raise ValueError("the first attempt says no")
"""


@contextmanager
def process(*words, log):
    """A program that ends with the test."""
    with log.open("w") as file:
        child = subprocess.Popen([str(word) for word in words], stdout=file, stderr=file)
    try:
        yield child
    finally:
        child.terminate()
        child.wait(30)


class Prometheus:
    """Asks a Prometheus over its API."""

    def __init__(self, port, child, log):
        self.base, self.child, self.log = f"http://127.0.0.1:{port}", child, log

    def get(self, path, **query):
        url = f"{self.base}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            return json.load(answer)["data"]

    def values(self, expression):
        """Give the values of an instant query, NaN left out."""
        found = [float(one["value"][1]) for one in self.get("query", query=expression)["result"]]
        return [value for value in found if value == value]

    def until(self, condition, what):
        """Wait for something; give it."""
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                if found := condition():
                    return found
            except OSError:  # it does not listen yet
                assert self.child.poll() is None, self.log.read_text()
            assert time.monotonic() < until, f"not within {PATIENCE_S:g} s: {what}"
            time.sleep(0.2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, render):
    folder = tmp_path_factory.mktemp("seen")
    (folder / "seen_work.py").write_text(WORK)
    (folder / "pipeline.yaml").write_text(PIPELINE)
    spec = render(TINY, sets=("monitoring.rules.enabled=true",)).one("PrometheusRule", "seg")["spec"]
    (folder / "rules.yaml").write_text(yaml.safe_dump(spec))
    return folder


def configured(folder, scheduler, worker):
    """Write a configuration that scrapes both as the chart's monitors do."""
    jobs = [
        {
            "job_name": component,
            "authorization": {"credentials_file": "run/token"},
            "static_configs": [
                {
                    "targets": [target],
                    "labels": {"namespace": "lab", "release": "seg", "component": component, "pod": component},
                }
            ],
        }
        for component, target in (("scheduler", scheduler), ("worker", worker))
    ]
    often = {"scrape_interval": "1s", "evaluation_interval": "1s", "scrape_timeout": "1s"}
    path = folder / "prometheus.yaml"
    path.write_text(yaml.safe_dump({"global": often, "rule_files": ["rules.yaml"], "scrape_configs": jobs}))
    return path


@pytest.fixture(scope="module")
def prometheus(folder):
    """A Prometheus that has scraped scheduler and worker of a run that goes on."""
    worker_http, own = free_port(), free_port()
    run = RunSpec(load_pipeline(folder / "pipeline.yaml"))
    local = LocalRun(run, folder / "run", workers=2, module_path=[str(folder)])
    with ExitStack() as stack:
        stack.enter_context(local)
        worker = (sys.executable, "-m", "blockyard_worker", "--scheduler", local.address, "--slots", "2")
        worker += ("--http-port", str(worker_http), "--token-file", folder / "run" / "token")
        worker += ("--module-path", folder)
        stack.enter_context(process(*worker, log=folder / "worker.log"))
        config = configured(folder, urllib.parse.urlsplit(local.http_url).netloc, f"127.0.0.1:{worker_http}")
        storage = (f"--storage.tsdb.path={folder / 'tsdb'}", f"--web.listen-address=127.0.0.1:{own}")
        log = folder / "prometheus.log"
        child = stack.enter_context(process("prometheus", f"--config.file={config}", *storage, log=log))
        found = Prometheus(own, child, log)
        found.until(lambda: len(found.values("up == 1")) == 2, "scheduler and worker are scraped")
        yield found


def filled_in(query):
    variables = {"$__rate_interval": "15s", "$namespace": "lab", "$release": "seg", "$task": ".*"}
    return re.sub(r"\$\w+", lambda name: variables[name[0]], query)


def test_each_query_of_the_dashboard_has_data(prometheus):
    """Numbers, not only NaN: quantiles and rates too; what does not happen in this run is there as zero."""
    for query in queries():
        prometheus.until(lambda query=query: prometheus.values(filled_in(query)), query)
    for name, why in IDLE.items():
        assert set(prometheus.values(name)) == {0.0}, why
        assert any(name in query for query in queries())


def test_what_a_person_chooses_from_is_there(prometheus):
    """Each variable of the dashboard has values."""
    for one in dashboard()["templating"]["list"][1:]:
        series, label = re.fullmatch(r"label_values\((.+), (\w+)\)", one["query"]).groups()
        assert prometheus.get(f"label/{label}/values", **{"match[]": filled_in(series)}), one["name"]


def test_a_worker_tells_its_own_metrics(prometheus):
    """Slots and outcomes, from its own port, with the version under the names that the scheduler has for it."""
    select = '{component="worker"}'
    prometheus.until(lambda: sum(prometheus.values(f"blockyard_worker_blocks_total{select}")) > 0, "blocks")
    assert sum(prometheus.values(f"blockyard_worker_slots{select}")) == 2
    assert prometheus.values("blockyard_worker_blocks_total{outcome='lost'}") == [0]
    assert len(prometheus.values("count by (version) (blockyard_build_info)")) == 1


def test_each_rule_is_evaluated(prometheus):
    """All, without an error, against metrics as they are."""

    def evaluated():
        rules = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
        return rules if all(rule["health"] != "unknown" for rule in rules) else None

    rules = prometheus.until(evaluated, "the rules are evaluated")
    assert {rule["name"] for rule in rules} == ALERTS
    assert [rule for rule in rules if rule["health"] != "ok" or rule.get("lastError")] == []
