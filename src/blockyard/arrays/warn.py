"""What every way of starting a run says before it starts."""

from __future__ import annotations

from pathlib import Path

from blockyard.arrays.look import arrays_of, declared_of
from blockyard.plan.plan_warnings import PlanWarning
from blockyard.plan.summary import run_warnings
from blockyard.spec.model import RunSpec


def warnings_before(run: RunSpec, folder: Path | None) -> list[PlanWarning]:
    """Return the warnings of a valid run, about its arrays too where they can be opened from `folder`.

    That is where its blocks run; None: nobody here knows it.
    """
    return run_warnings(run, [*arrays_of(run, folder), *declared_of(run, folder)] if folder is not None else ())
