"""Where things are."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "blockyard"
CACHE = ROOT / ".cache"
EXAMPLES = ROOT / "examples"
