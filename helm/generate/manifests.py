"""k8s/: the chart rendered for `kubectl apply -k`, one object a file, with a demo pipeline."""

from __future__ import annotations

from pathlib import Path


def manifests() -> dict[Path, str]:
    """Give all files of k8s/ with their texts."""
    return {}
