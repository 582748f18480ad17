"""`blockyard values FILE`: a pipeline file as values of the Helm chart."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from blockyard.cli.app import DONE
from blockyard.plan.declared import by_hand
from blockyard.spec.errors import SpecError
from blockyard.spec.load import load_pipeline
from blockyard.spec.model import PipelineSpec, RunSpec
from blockyard.spec.yaml_text import write_yaml


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
    pipeline = load_pipeline(arguments.file)
    by_hand(RunSpec(pipeline))  # a chart's scheduler sees no arrays
    _check_exact(pipeline, arguments.file)
    values = chart_values(pipeline)
    print(write_yaml(values), end="")
    return DONE


def chart_values(pipeline: PipelineSpec) -> dict[str, Any]:
    """Return the chart's values of a pipeline: itself, and one pool of workers for each name that its tasks use."""
    pools = dict.fromkeys(task.pool for task in pipeline.tasks)
    return {"pipeline": msgspec.to_builtins(pipeline), "pools": {pool: {} for pool in pools}}


EXACT = 2**53
"""Helm keeps whole numbers up to here as they are."""


def _check_exact(pipeline: PipelineSpec, file: str) -> None:
    """Raise SpecError for a number that Helm would round; say where it will turn a float into a whole number."""
    whole: list[str] = []
    for task in pipeline.tasks:
        for name, value in numbers(task.params, "params"):
            if isinstance(value, int) and abs(value) >= EXACT:
                raise SpecError(
                    f"{file}: task '{task.id}', {name} is {value}, which Helm would round: it keeps 53 bits of a whole"
                    " number; write it in quotes, and make it a number in the function"
                )
            if isinstance(value, float) and value.is_integer():
                whole.append(f"{value:g} (task '{task.id}', {name})")
    if whole:
        more = f" and {len(whole) - 1} more" if len(whole) > 1 else ""
        print(
            f"note: Helm hands on a number without a fraction as a whole one: {whole[0]}{more}; where that matters,"
            " float() in the function makes it one again",
            file=sys.stderr,
        )


def numbers(value: Any, name: str) -> Iterator[tuple[str, int | float]]:
    """Yield the numbers in plain data, each with its name."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from numbers(item, f"{name}.{key}")
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            yield from numbers(item, f"{name}[{place}]")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield name, value
