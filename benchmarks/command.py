"""What the measurements of one run of blockyard share: SHAPE SIDE WORKERS on the command line, and one JSON line."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

from shapes import SHAPES


def parser_of_run() -> argparse.ArgumentParser:
    """Give a parser of what every run is made of."""
    parser = argparse.ArgumentParser()
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("side", type=int)
    parser.add_argument("workers", type=int)
    return parser


def print_measured(
    parser: argparse.ArgumentParser, measure: Callable[[argparse.Namespace, Path], dict[str, object]]
) -> None:
    """Measure what the command line says, in a folder of its own; print the figures."""
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(arguments, Path(folder))))
