"""The Grafana dashboard, row by row; JSON by hand drifts and hides its queries."""

from __future__ import annotations

import json
from typing import Any

SELECT = 'namespace="$namespace",release="$release"'
TASKS = SELECT + ',task=~"$task"'
ONLINE = SELECT + ',state!="disconnected"'
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH = 24
"""Columns of Grafana's grid."""

Panel = dict[str, Any]


def gauge_max(metric: str, by: str, select: str = TASKS) -> str:
    """Give a gauge once, though several schedulers may tell it (standbys, the old one and the new one)."""
    return f"max by ({by}) ({metric}{{{select}}})"


def blocks_in(states: str) -> str:
    """Give the blocks of the tasks in these states (a regular expression), by task and state."""
    return gauge_max("blockyard_blocks", "task, state", f'{TASKS},state=~"{states}"')


def online(by: str) -> str:
    """Give the workers that are connected."""
    return f"sum by ({by}) ({gauge_max('blockyard_workers', 'pool, state', ONLINE)})"


def rate(metric: str, by: str, select: str = TASKS) -> str:
    """Give a counter's rate, summed over schedulers and workers."""
    return f"sum by ({by}) (rate({metric}{{{select}}}[$__rate_interval]))"


def total_rate(metric: str) -> str:
    """Give the rate of a counter of the whole release as one line."""
    return f"sum(rate({metric}{{{SELECT}}}[$__rate_interval]))"


def quantile(q: float, metric: str, by: str, select: str = TASKS) -> str:
    """Give a quantile of a histogram over the rate interval."""
    return f"histogram_quantile({q}, {rate(metric + '_bucket', by + ', le' if by else 'le', select)})"


def panel(title: str, kind: str, queries: dict[str, str], width: int, unit: str = "short", **more: Any) -> Panel:
    """Give one panel; `queries` are expressions by legend, `more` is what it has beyond that."""
    form = more.pop("format", "time_series")
    targets = [
        {"refId": chr(ord("A") + i), "datasource": SOURCE, "expr": expr, "legendFormat": legend, "format": form}
        for i, (legend, expr) in enumerate(queries.items())
    ]
    field = {"unit": unit, **more.pop("field", {})}
    return {
        "title": title,
        "type": kind,
        "datasource": SOURCE,
        "description": more.pop("about", ""),
        "targets": targets,
        "fieldConfig": {"defaults": field, "overrides": []},
        "options": more.pop("options", {}),
        "gridPos": {"w": width, "h": more.pop("height", 8)},
    }


def stacked() -> dict[str, Any]:
    """Give the field settings of areas on top of each other."""
    return {"custom": {"stacking": {"mode": "normal"}, "fillOpacity": 40, "lineWidth": 1}}


def progress() -> list[Panel]:
    """How far, and when done."""
    return [
        panel(
            "Finished",
            "bargauge",
            # Rounded down: 100 % is all of it.
            {"{{task}}": f"floor(1000 * {gauge_max('blockyard_progress_ratio', 'task')}) / 1000"},
            10,
            "percentunit",
            about="Blocks that are done or skipped, of all; those that failed or never run are not finished.",
            field={"min": 0, "max": 1, "decimals": 1},
            options={
                "orientation": "horizontal",
                "displayMode": "gradient",
                "reduceOptions": {"calcs": ["lastNotNull"]},
            },
        ),
        panel(
            "Time left",
            "stat",
            {"{{task}}": gauge_max("blockyard_eta_seconds", "task")},
            7,
            "s",
            about="From the last two minutes and the workers that are there. Empty: not known yet, or paused.",
        ),
        panel("Blocks left", "stat", {"blocks": f"sum({blocks_in('pending|ready|leased')})"}, 4),
        panel(
            "Failed",
            "stat",
            {
                "failed": f"sum({blocks_in('failed')})",
                "orphaned": f"sum({blocks_in('orphaned')})",
            },
            3,
            field={"thresholds": {"steps": [{"color": "green", "value": None}, {"color": "red", "value": 1}]}},
        ),
        panel(
            "Time left, over time",
            "timeseries",
            {
                "{{task}}": gauge_max("blockyard_eta_seconds", "task"),
                "{{task}}: p10": gauge_max("blockyard_eta_low_seconds", "task"),
                "{{task}}: p90": gauge_max("blockyard_eta_high_seconds", "task"),
            },
            12,
            "s",
            about="With the range in which the end lies eight times of ten.",
        ),
        panel(
            "Blocks by state", "timeseries", {"{{state}}": f"sum by (state) ({blocks_in('.+')})"}, 12, field=stacked()
        ),
    ]


def throughput() -> list[Panel]:
    """How fast."""
    name = "blockyard_block_duration_seconds"
    return [
        panel(
            "Blocks a second",
            "timeseries",
            {"{{task}} {{outcome}}": rate("blockyard_blocks_completed_total", "task, outcome")},
            6,
        ),
        panel(
            "Voxels a second",
            "timeseries",
            {"{{task}}": rate("blockyard_voxels_completed_total", "task")},
            6,
            about="Voxels that done blocks wrote; a clipped block counts what it wrote.",
        ),
        panel(
            "How long blocks take",
            "timeseries",
            {f"p{round(100 * q)} {{{{task}}}}": quantile(q, name, "task") for q in (0.5, 0.95, 0.99)},
            6,
            "s",
        ),
        panel(
            "Durations",
            "heatmap",
            {"{{le}}": rate(name + "_bucket", "le")},
            6,
            "s",
            format="heatmap",
            options={"calculate": False, "yAxis": {"unit": "s"}},
        ),
    ]


def dependency() -> list[Panel]:
    """Whether more workers would help."""
    return [
        panel(
            "Would more workers help?",
            "timeseries",
            {
                "could run now: {{task}}": gauge_max("blockyard_blocks_runnable", "task"),
                "workers": f"sum({online('pool')})",
            },
            12,
            about="Blocks that could run now, halos and upstream considered. Far more than slots of workers: yes.",
        ),
        panel(
            "Ready, running, waiting",
            "timeseries",
            {"{{state}} {{task}}": blocks_in("pending|ready|leased")},
            6,
            about="Pending blocks wait for a neighbour (conflict) or for upstream.",
        ),
        panel(
            "How long workers wait for blocks",
            "timeseries",
            {f"p{round(100 * q)}": quantile(q, "blockyard_block_wait_seconds", "", SELECT) for q in (0.5, 0.99)},
            6,
            "s",
        ),
    ]


def workers() -> list[Panel]:
    """Workers by pool."""
    return [
        panel(
            "Workers wanted and there",
            "timeseries",
            {
                "wanted {{pool}}": gauge_max("blockyard_workers_desired", "pool", SELECT),
                "there {{pool}}": online("pool"),
            },
            12,
        ),
        panel(
            "Workers by state",
            "timeseries",
            {"{{pool}} {{state}}": gauge_max("blockyard_workers", "pool, state", SELECT)},
            6,
            field=stacked(),
        ),
        panel(
            "Scaling",
            "timeseries",
            {"{{pool}} {{direction}}": rate("blockyard_scale_actions_total", "pool, direction", SELECT)},
            6,
            "ops",
        ),
    ]


def reliability() -> list[Panel]:
    """What went wrong and was mended."""
    return [
        panel(
            "Retries",
            "timeseries",
            {"{{task}} {{reason}}": rate("blockyard_block_retries_total", "task, reason")},
            8,
            "ops",
        ),
        panel(
            "Leases",
            "timeseries",
            {
                "granted": total_rate("blockyard_leases_granted_total"),
                "expired": total_rate("blockyard_leases_expired_total"),
                "stale releases": total_rate("blockyard_stale_releases_total"),
            },
            8,
            "ops",
        ),
        panel(
            "Connections",
            "timeseries",
            {
                "connections": f"sum(blockyard_connections{{{SELECT}}})",
                "refused: {{reason}}": rate("blockyard_handshakes_refused_total", "reason", SELECT),
            },
            8,
        ),
    ]


def control_plane() -> list[Panel]:
    """The scheduler itself."""
    return [
        panel(
            "Event loop lag",
            "timeseries",
            {"{{pod}}": f"max by (pod) (blockyard_loop_lag_seconds{{{SELECT}}})"},
            6,
            "s",
        ),
        panel(
            "Commit to Redis",
            "timeseries",
            {f"p{round(100 * q)}": quantile(q, "blockyard_store_commit_seconds", "", SELECT) for q in (0.5, 0.99)},
            6,
            "s",
        ),
        panel(
            "Redis",
            "timeseries",
            {
                "errors a second": total_rate("blockyard_store_errors_total"),
                "durable": f"min(blockyard_store_durable{{{SELECT}}})",
            },
            6,
        ),
        panel(
            "Kubernetes calls",
            "timeseries",
            {"{{verb}} {{code}}": rate("blockyard_kubernetes_requests_total", "verb, code", SELECT)},
            6,
            "ops",
        ),
        panel(
            "Versions", "stat", {"{{version}}": f"count by (version) (blockyard_build_info{{{SELECT}}})"}, 24, height=3
        ),
    ]


def waste() -> list[Panel]:
    """Useful seconds against wasted ones."""
    useful = total_rate("blockyard_block_duration_seconds_sum")
    wasted = total_rate("blockyard_wasted_seconds_total")
    return [
        panel(
            "Seconds of work a second",
            "timeseries",
            {"useful": useful, "wasted: {{reason}}": rate("blockyard_wasted_seconds_total", "reason", SELECT)},
            16,
            field=stacked(),
        ),
        panel("Wasted share", "stat", {"wasted": f"{wasted} / ({useful} + {wasted})"}, 8, "percentunit"),
    ]


ROWS = {
    "Progress": progress,
    "Throughput": throughput,
    "Dependency: would more workers help?": dependency,
    "Workers": workers,
    "Reliability": reliability,
    "Control plane": control_plane,
    "Waste": waste,
}


def variable(name: str, query: str, **more: Any) -> dict[str, Any]:
    """Give a variable chosen from a label's values."""
    return {"name": name, "type": "query", "datasource": SOURCE, "query": query, "refresh": 2, "sort": 1, **more}


def placed() -> list[Panel]:
    """Give all panels with their places: left to right, a new line when one is full, a heading for each row."""
    panels: list[Panel] = []
    y = 0
    for title, make in ROWS.items():
        panels.append(
            {
                "type": "row",
                "title": title,
                "collapsed": False,
                "panels": [],
                "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1},
            }
        )
        y += 1
        x = height = 0
        for one in make():
            if x + one["gridPos"]["w"] > WIDTH:
                x, y = 0, y + height
                height = 0
            one["gridPos"] |= {"x": x, "y": y}
            x += one["gridPos"]["w"]
            height = max(height, one["gridPos"]["h"])
            panels.append(one)
        y += height
    return [{"id": i, **one} for i, one in enumerate(panels, 1)]


def dashboard() -> str:
    """Give the text of dashboards/blockyard.json."""
    everything = {
        "uid": "blockyard",
        "title": "blockyard",
        "tags": ["blockyard"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "15s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {
            "list": [
                {"name": "datasource", "label": "data source", "type": "datasource", "query": "prometheus"},
                variable("namespace", "label_values(blockyard_build_info, namespace)"),
                variable("release", 'label_values(blockyard_build_info{namespace="$namespace"}, release)'),
                variable(
                    "task",
                    f"label_values(blockyard_blocks{{{SELECT}}}, task)",
                    includeAll=True,
                    multi=True,
                    allValue=".*",
                    current={"text": "All", "value": "$__all"},
                ),
            ]
        },
        "panels": placed(),
    }
    return json.dumps(everything, indent=1) + "\n"
