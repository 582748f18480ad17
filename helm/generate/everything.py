"""`python helm/generate [--check]`: write (or compare) all that is made from the chart, its comments and the models.

With --check nothing is written; the exit status is 1 if a file is not what it would be now.
"""

from __future__ import annotations

import sys
from pathlib import Path

from compose import compose_alerts
from dashboard import dashboard
from manifests import manifests
from paths import CHART, ROOT
from readme import chart_readme
from values_schema import values_schema


def generated() -> dict[Path, str]:
    """Give all generated files with their texts."""
    return {
        CHART / "values.schema.json": values_schema(),
        CHART / "README.md": chart_readme(),
        CHART / "dashboards" / "blockyard.json": dashboard(),
        ROOT / "deploy" / "compose" / "alerts.yml": compose_alerts(),
    }


def drifted(files: dict[Path, str]) -> list[Path]:
    """Give the files that are not there or have another text."""
    return [path for path, text in files.items() if not path.exists() or path.read_text() != text]


def main() -> None:
    """Generate; the manifests last, as they are rendered from the rest."""
    check = "--check" in sys.argv[1:]
    stale: list[Path] = []
    for make in (generated, manifests):
        files = make()
        changed = drifted(files)
        stale += changed
        for path in [] if check else changed:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(files[path])
    for path in stale:
        print(f"{'differs' if check else 'wrote'}: {path.relative_to(ROOT)}")
    if check and stale:
        sys.exit("Run 'make manifests' and commit what it changes.")
