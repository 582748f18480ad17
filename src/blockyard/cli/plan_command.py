"""`blockyard plan FILE`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from blockyard.arrays.declare import declared_arrays
from blockyard.arrays.look import arrays_of
from blockyard.cli.app import DONE
from blockyard.cli.plan_text import plan_text
from blockyard.local.preflight import FunctionCheck
from blockyard.local.services import environment_of_services
from blockyard.plan.summary import plan_run
from blockyard.spec.errors import NotImportableError
from blockyard.spec.load import load_pipeline
from blockyard.spec.model import PipelineSpec, RunSpec
from blockyard.spec.targets import choose


def prepare(_command: str, parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], int]:
    """Describe the command; give what runs it."""
    parser.description = "Say what a pipeline would run: blocks, levels, the most that can run at once, warnings."
    parser.epilog = (
        "example:\n  blockyard plan pipeline.yaml --request 0:20,512:1024,512:1024\n\n"
        "It imports the functions in a process of its own, runs none and reads no data: of arrays that parameters\n"
        "name only what they say of themselves. 'levels' are the steps that keep blocks apart whose reads and writes\n"
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


def pipeline_of(arguments: argparse.Namespace, home: Path) -> PipelineSpec:
    """Return the pipeline of the file; where a request is held against its ROIs, with those that maps have by now."""
    pipeline = load_pipeline(arguments.file)
    if arguments.request and any(task.block is not None for task in pipeline.tasks):
        return declared_arrays(RunSpec(pipeline), home).run.pipeline
    return pipeline


def run(arguments: argparse.Namespace) -> int:
    """Print the plan. Raises SpecError for a function that cannot be called as it will be."""
    home = Path(arguments.file).absolute().parent
    chosen = choose(pipeline_of(arguments, home), arguments.only, arguments.request)
    with _checked(chosen.pipeline, home) as functions:
        declared = declared_arrays(chosen, home)
        plan = plan_run(declared.run, [*arrays_of(chosen, home), *declared.facts])
        try:
            said = functions.finish(lambda text: print(text, file=sys.stderr))
        except NotImportableError as error:  # a plan is of use where the workers' modules are not
            said = [f"{error} (here; a run checks it again)"]
    said += [note.text for note in declared.notes]
    makes = tuple(array.describe() for array in declared.new)
    plan = msgspec.structs.replace(plan, warnings=(*plan.warnings, *said), makes=makes)
    print(msgspec.json.format(msgspec.json.encode(plan)).decode() if arguments.json else plan_text(plan))
    return DONE


def _checked(pipeline: PipelineSpec, home: Path) -> FunctionCheck:
    """Begin to check the functions as a run would, but without the compiled files that an import leaves."""
    return FunctionCheck(pipeline, [str(home)], environment_of_services() | {"PYTHONDONTWRITEBYTECODE": "1"})
