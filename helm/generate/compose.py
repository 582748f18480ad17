"""The chart's alerts for the Prometheus of docker-compose.yml."""

from __future__ import annotations

import yaml
from paths import CHART

SELECTOR = 'namespace="compose",release="demo"'
"""The labels that deploy/compose/prometheus.yml gives everything it scrapes."""
STALLED_MINUTES = "30"


def compose_alerts() -> str:
    """Give the text of deploy/compose/alerts.yml."""
    text = (CHART / "rules" / "alerts.yaml").read_text()
    rules = yaml.safe_load(text.replace("SELECTOR", SELECTOR).replace("STALLED", STALLED_MINUTES))
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            rule["annotations"]["runbook_url"] = values["monitoring"]["rules"]["runbookUrl"] + rule["alert"].lower()
    head = "# Made by `make manifests` from helm/blockyard/rules/alerts.yaml.\n"
    return head + yaml.safe_dump(rules, sort_keys=False, width=120)
