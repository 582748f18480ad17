"""`blockyard plan FILE`."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import msgspec

from blockyard.cli.app import DONE
from blockyard.cli.plan import plan_run, plan_text
from blockyard.spec.load import load_pipeline
from blockyard.spec.targets import choose


def prepare(_command: str, parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], int]:
    """Describe the command; give what runs it."""
    parser.description = "Say what a pipeline would run: blocks, levels, the most that can run at once, warnings."
    parser.epilog = (
        "example:\n  blockyard plan pipeline.yaml --request 0:20,512:1024,512:1024\n\n"
        "It runs nothing and opens no data. 'levels' are the steps that keep blocks apart whose reads and writes\n"
        "overlap; 'at once' is how many workers a task can use at best."
    )
    add_choice(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    return run


def add_choice(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say what of a pipeline is meant."""
    parser.add_argument("file", metavar="FILE", help="pipeline file (YAML)")
    parser.add_argument("--only", metavar="TASK", default="", help="only this task, and what it requires")
    parser.add_argument(
        "--request",
        metavar="ROI",
        default="",
        help="only blocks that write into this ROI, 'begin:end,begin:end,...', of --only or of the last tasks",
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the plan."""
    plan = plan_run(choose(load_pipeline(arguments.file), arguments.only, arguments.request))
    print(msgspec.json.format(msgspec.json.encode(plan)).decode() if arguments.json else plan_text(plan))
    return DONE
