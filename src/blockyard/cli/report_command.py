"""`blockyard report`: what a run did, as one HTML file to send to a colleague."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

from blockyard.cli.app import DONE
from blockyard.cli.find import add_where, place_of, reach
from blockyard.cli.report.page import MARK, report
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
    output = Path(arguments.output)
    _refuse_to_overwrite(output)
    with reach(place_of(arguments.where), arguments) as control:
        text = report(control.status(), control.record(), control.failures(), time.time())
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BlockyardError(f"the report cannot be written to {arguments.output} ({error.strerror})") from None
    print(f"{arguments.output}: {len(text) / 1000:,.0f} kB")
    return DONE


def _refuse_to_overwrite(output: Path) -> None:
    """Raise BlockyardError where a file is there that is no report."""
    try:
        with output.open("rb") as file:
            if not output.is_file() or MARK.encode() in file.read(1000):
                return
    except FileNotFoundError:
        return
    except OSError as error:
        raise BlockyardError(f"the report cannot be written to {output} ({error.strerror})") from None
    raise BlockyardError(f"{output} is there and is no report of blockyard; give another name with --output")
