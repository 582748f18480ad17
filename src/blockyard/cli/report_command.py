"""`blockyard report`: what a run did, as one HTML file to send to a colleague."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

from blockyard.cli.app import DONE
from blockyard.cli.find import add_where, place_of, reach
from blockyard.cli.report.page import report
from blockyard.spec.errors import BlockyardError


def prepare(_: str, parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], int]:
    """Describe the command; give its handler."""
    parser.description = (
        "Writes one HTML file, which needs nothing else and runs no script: throughput over time, what workers did, how"
        " long blocks took and where, the slowest ones, retries, waste and failures. Of a run that lasts, ended, or was"
        " stopped."
    )
    parser.epilog = "examples:\n  blockyard report\n  blockyard report localhost:8471 --output run.html"
    add_where(parser)
    parser.add_argument("--output", "-o", default="report.html", metavar="FILE", help="where to (default: report.html)")
    return _report


def _report(arguments: argparse.Namespace) -> int:
    with reach(place_of(arguments.where), arguments) as control:
        text = report(control.status(), control.record(), control.failures(), time.time())
    try:
        Path(arguments.output).write_text(text, encoding="utf-8")
    except OSError as error:
        raise BlockyardError(f"the report cannot be written to {arguments.output} ({error.strerror})") from None
    print(f"{arguments.output}: {len(text) / 1000:,.0f} kB")
    return DONE
