"""A real helm renders the chart; what a machine lacks (promtool) is said in the report, never passed over."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "helm" / "generate"))

PROGRAMS = {
    "promtool": "Debian's package prometheus",
    "prometheus": "likewise",
    "buildah": "as root, with BLOCKYARD_IMAGES=1; it takes minutes",
    "mmdebstrap": "as root, with BLOCKYARD_IMAGES=1; it takes minutes",
}
"""Programs that no package of PyPI carries: in CI those of Debian are there, elsewhere such tests are left out."""


def _lacking() -> dict[str, str]:
    """Give the programs whose tests are left out, and what would bring them in."""
    debian = {"promtool", "prometheus"}
    there = debian if os.environ.get("CI") else {name for name in debian if shutil.which(name)}
    if os.environ.get("BLOCKYARD_IMAGES") and os.geteuid() == 0:
        there |= {"buildah", "mmdebstrap"}
    return {name: where for name, where in PROGRAMS.items() if name not in there}


def pytest_collection_modifyitems(config, items):
    lacking = set(_lacking())
    here = [item for item in items if Path(__file__).parent in item.path.parents]
    out = [item for item in here if lacking & {mark.args[0] for mark in item.iter_markers("program")}]
    if out:
        config.hook.pytest_deselected(items=out)
        items[:] = [item for item in items if item not in out]


def pytest_terminal_summary(terminalreporter):
    for name, where in _lacking().items():
        terminalreporter.write_line(f"not run: tests of the chart that need {name} ({where})", yellow=True)


@pytest.fixture(scope="session")
def helm() -> Path:
    import toolchain

    return toolchain.helm()


@pytest.fixture(scope="session")
def render(helm, tmp_path_factory):
    """Call with values files (paths or texts) and --set arguments; gives a `Rendering`, or raises `Refused`."""
    from chart import Renderer

    return Renderer(helm, tmp_path_factory.mktemp("values"))


@pytest.fixture(scope="session")
def run_tool():
    def run(*command: str | Path, cwd: Path | None = None) -> str:
        words = [str(word) for word in command]
        done = subprocess.run(words, capture_output=True, text=True, timeout=100, cwd=cwd, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    return run
