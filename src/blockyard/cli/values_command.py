"""`blockyard values FILE`: a pipeline file as values of the Helm chart."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import msgspec
import yaml

from blockyard.cli.app import DONE
from blockyard.spec.load import load_pipeline
from blockyard.spec.model import PipelineSpec


def prepare(_command: str, parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], int]:
    """Describe the command; give what runs it."""
    parser.description = "Print values of the Helm chart for a pipeline file: the pipeline, and its pools of workers."
    parser.epilog = (
        "example:\n  blockyard values pipeline.yaml > values.yaml\n  helm install em helm/blockyard -f values.yaml\n\n"
        "Add images, resources and scaling of each pool to the file; 'helm show values helm/blockyard' lists them."
    )
    parser.add_argument("file", metavar="FILE", help="pipeline file (YAML)")
    return run


def run(arguments: argparse.Namespace) -> int:
    """Print the values."""
    values = chart_values(load_pipeline(arguments.file))
    print(yaml.safe_dump(values, sort_keys=False, width=100), end="")
    return DONE


def chart_values(pipeline: PipelineSpec) -> dict[str, Any]:
    """Return the chart's values of a pipeline: itself, and one pool of workers for each name that its tasks use."""
    pools = dict.fromkeys(task.pool for task in pipeline.tasks)
    return {"pipeline": msgspec.to_builtins(pipeline), "pools": {pool: {} for pool in pools}}
