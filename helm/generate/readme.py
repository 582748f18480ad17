"""The chart's README, made from README.md.in and the comments of values.yaml."""

from __future__ import annotations

import json

from documented import Value, documented_values
from paths import CHART

MARK = "<!-- table of values -->"


def chart_readme() -> str:
    """Give the text of the chart's README.md."""
    values = documented_values((CHART / "values.yaml").read_text())
    return (CHART / "README.md.in").read_text().replace(MARK, _table(values))


def _table(values: list[Value]) -> str:
    rows = ["| value | default | meaning |", "|---|---|---|"]
    rows += [_row(value) for value in values if value.leaf or value.comment]
    return "\n".join(rows)


def _row(value: Value) -> str:
    default = f"`{json.dumps(value.default)}`" if value.leaf else ""
    return f"| `{'.'.join(value.path)}` | {default} | {value.comment.replace('|', '&#124;')} |".replace("  ", " ")
