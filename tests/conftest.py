"""How many cases the property tests draw: ``BLOCKYARD_HYPOTHESIS_PROFILE=dev|ci|thorough`` (default: dev, ci in CI).

docs/correctness.md says what is compared. Cases are drawn anew in each run. What fails is printed with a
``@reproduce_failure`` line, and kept in ``.hypothesis`` so that it is tried first the next time.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

import blockyard

EXAMPLES = {"dev": 50, "ci": 400, "thorough": 5000, "mutants": 400}
PROFILE = os.environ.get("BLOCKYARD_HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev")

FOUND_IS_ENOUGH = (Phase.explicit, Phase.generate)
"""For mutants: nobody reads the failing case, so it is not made smaller (minutes for a state machine)."""

for name, examples in EXAMPLES.items():
    settings.register_profile(
        name,
        max_examples=examples,
        deadline=None,  # no timing assertions: the machine may be busy
        derandomize=name == "mutants",  # a mutant is caught by the same cases each time
        print_blob=True,
        phases=FOUND_IS_ENOUGH if name == "mutants" else tuple(Phase),
        report_multiple_bugs=name != "mutants",
        database=None if name == "mutants" else settings().database,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )
settings.load_profile(PROFILE)

# tests/mutants.py runs the tests on a changed copy of the library; make sure that they do not see the true one.
if (library := os.environ.get("BLOCKYARD_LIBRARY")) and not str(blockyard.__file__).startswith(library):
    raise RuntimeError(f"the tests import {blockyard.__file__}, not the copy in {library}")
