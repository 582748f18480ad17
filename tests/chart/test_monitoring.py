"""Alerts and dashboard: promtool judges and tries them, and they ask for nothing that is not measured."""

from __future__ import annotations

import json
import re
from collections import Counter
from types import MappingProxyType
from typing import ClassVar

import pytest
import yaml
from chart import CHART, ROOT, TINY
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from blockyard_scheduler.meter import Meter
from blockyard_scheduler.metrics import RunCollector

ALERTS = {
    *("PipelineStalled", "PipelineNoWorkers", "PipelineEtaSlipping", "PipelineBlocksFailed", "PipelineStragglers"),
    *("LeaseExpiryRateHigh", "WorkersPending", "AutoscalerThrashing", "SchedulerDown", "SchedulerLoopLagHigh"),
    *("StateStoreUnavailable", "StateStoreNotDurable", "StateStoreForgot", "PreemptionWasteHigh", "MetricsAbsent"),
    *("PipelineFailingFast", "WorkerFailsAll"),
}
RUNBOOKS = ROOT / "docs" / "runbooks.md"


@pytest.fixture(scope="module")
def rules(render, tmp_path_factory):
    """The rules of release seg as a file for promtool, beside the file of their tests."""
    sets = ("monitoring.rules.enabled=true", "monitoring.rules.runbookUrl=RUNBOOKS#")
    folder = tmp_path_factory.mktemp("rules")
    spec = render(TINY, sets=sets).one("PrometheusRule", "seg")["spec"]
    (folder / "rules.yaml").write_text(yaml.safe_dump(spec))
    (folder / "alerts_test.yaml").write_text((ROOT / "tests" / "chart" / "alerts_test.yaml").read_text())
    return folder / "rules.yaml"


@pytest.fixture(scope="module")
def alerts(rules):
    return {one["alert"]: one for group in yaml.safe_load(rules.read_text())["groups"] for one in group["rules"]}


@pytest.mark.program("promtool")
def test_promtool_accepts_the_rules(rules, run_tool):
    """Every expression and every template in an annotation is one that Prometheus can read."""
    said = run_tool("promtool", "check", "rules", "--lint=all", "--lint-fatal", rules)
    assert f"SUCCESS: {len(ALERTS)} rules found" in said


@pytest.mark.program("promtool")
def test_each_alert_fires_when_it_should_and_only_then(rules, run_tool):
    """The histories of alerts_test.yaml have moments at which each alert must fire and others at which it must not."""
    assert "SUCCESS" in run_tool("promtool", "test", "rules", "alerts_test.yaml", cwd=rules.parent)
    tests = yaml.safe_load((rules.parent / "alerts_test.yaml").read_text())["tests"]
    moments = [moment for one in tests for moment in one["alert_rule_test"]]
    assert {moment["alertname"] for moment in moments if moment["exp_alerts"]} == ALERTS
    assert {moment["alertname"] for moment in moments if not moment["exp_alerts"]} == ALERTS


def test_each_alert_says_what_to_do(alerts):
    """For how long, how bad, what, why, and a page of the runbook that is there."""
    headings = set(re.findall(r"^## (\w+)$", RUNBOOKS.read_text(), re.MULTILINE))
    assert alerts.keys() == ALERTS
    assert headings == ALERTS
    for name, alert in alerts.items():
        assert alert["for"]
        assert alert["labels"]["severity"] in {"critical", "warning"}
        assert alert["annotations"].keys() == {"summary", "description", "runbook_url"}
        assert alert["annotations"]["runbook_url"].endswith("#" + name.lower())


def test_rules_choose_one_release(alerts):
    """Each selector names namespace and release, or one run's trouble would be told for all."""
    for alert in alerts.values():
        selectors = re.findall(r"(?:blockyard_\w+|\bup)(\{[^}]*\})?", alert["expr"])
        assert selectors
        assert all('namespace="lab",release="seg"' in selector for selector in selectors), alert["alert"]


def test_a_release_that_ends_is_not_missed(render):
    """With `run.onEnd: exit` the metrics end with the run, so nobody is told that they are absent."""
    sets = ("monitoring.rules.enabled=true", "run.onEnd=exit", "monitoring.rules.disabled={SchedulerDown}")
    groups = render(TINY, sets=sets).one("PrometheusRule", "seg")["spec"]["groups"]
    assert {one["alert"] for group in groups for one in group["rules"]} == ALERTS - {"MetricsAbsent", "SchedulerDown"}


class NoRun:
    """A scheduler that leads nothing yet: all its metrics are there all the same."""

    meter = Meter(["task"])
    loop_lag_s = 0.0
    store_durable = True
    outcomes = MappingProxyType({})
    voxels = MappingProxyType({})
    pools = ("default",)
    scale_actions: ClassVar = Counter()
    kubernetes_requests: ClassVar = Counter()
    n_connections = 0
    n_store_errors = 0

    def status(self):
        return None


def measured() -> set[str]:
    """Give the names under which Prometheus stores what the scheduler tells."""
    families = list(RunCollector(NoRun()).collect())
    names = {sample.name for family in families for sample in family.samples}
    return names | {family.name for family in families if family.type == "gauge"}


def dashboard() -> dict:
    return json.loads((CHART / "dashboards" / "blockyard.json").read_text())


def queries() -> list[str]:
    return [target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", [])]


def test_what_rules_and_dashboard_ask_for_is_measured(alerts):
    """Every metric that is named in them is one that the scheduler tells."""
    texts = [*queries(), *(alert["expr"] for alert in alerts.values())]
    asked = {name for text in texts for name in re.findall(r"blockyard_\w+", text)}
    assert len(asked) > 20
    assert asked <= measured()


def test_the_dashboard_has_a_row_for_each_question():
    """Rows, variables and rate intervals as a person expects them."""
    board = dashboard()
    rows = [panel["title"] for panel in board["panels"] if panel["type"] == "row"]
    assert [row.split(":")[0] for row in rows] == [
        *("Progress", "Throughput", "Dependency", "Workers", "Reliability", "Control plane", "Waste")
    ]
    assert [one["name"] for one in board["templating"]["list"]] == ["datasource", "namespace", "release", "task"]
    for query in queries():
        assert 'namespace="$namespace",release="$release"' in query
        assert "[" not in query or "[$__rate_interval]" in query


def test_grafana_knows_every_field_of_the_dashboard():
    """Its own models read the dashboard and write the same again: they drop a field that Grafana does not have."""
    register_default_plugins()
    board = dashboard()
    again = json.loads(JSONEncoder().encode(Dashboard.from_json(board)))
    assert list(lost(board, again)) == []
    board["panels"][1]["titel"] = "a field that Grafana does not have"
    assert list(lost(board, again)) == ["/panels/1/titel"]


def lost(given, kept, at=""):
    """Give the places of what is in one JSON value and not, or otherwise, in the other."""
    if isinstance(given, dict) and isinstance(kept, dict):
        for key, value in given.items():
            yield from lost(value, kept.get(key), f"{at}/{key}")
    elif isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        for n, (one, other) in enumerate(zip(given, kept, strict=True)):
            yield from lost(one, other, f"{at}/{n}")
    elif given != kept:
        yield at


def test_panels_do_not_overlap():
    """Each cell of Grafana's grid belongs to one panel at most, and none reaches over its 24 columns."""
    cells = set()
    for panel in dashboard()["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        own = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not own & cells, panel["title"]
        cells |= own


@pytest.mark.program("promtool")
def test_promtool_accepts_the_queries_of_the_dashboard(run_tool, tmp_path):
    """Each query, with Grafana's variables put in, is one that Prometheus can read."""
    variables = {"$__rate_interval": "1m", "$namespace": "lab", "$release": "seg", "$task": ".*"}
    rules = []
    for number, query in enumerate(queries()):
        expression = re.sub(r"\$\w+", lambda name: variables[name[0]], query)
        rules.append({"record": f"panel:{number}", "expr": expression})
    path = tmp_path / "queries.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    run_tool("promtool", "check", "rules", path)


def test_monitors_give_the_labels_that_rules_and_dashboard_choose_by(render):
    """Both kinds of scrape add `release` and `component`; the namespace comes from the operator."""
    rendering = render(TINY, sets=("monitoring.monitors.enabled=true",))
    service = rendering.one("ServiceMonitor", "seg-scheduler")["spec"]["endpoints"][0]
    pods = rendering.one("PodMonitor", "seg-worker")["spec"]["podMetricsEndpoints"][0]
    for endpoint, component in ((service, "scheduler"), (pods, "worker")):
        labels = {one["targetLabel"]: one["replacement"] for one in endpoint["relabelings"]}
        assert labels == {"release": "seg", "component": component}
        assert (endpoint["port"], endpoint["path"]) == ("http", "/metrics")
