"""A run's folder, a report and a refused start remove and overwrite only what blockyard made."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from blockyard import Parameter, Roi, Task, distribute, run_blockwise
from blockyard.local.folder import OURS
from blockyard.spec.errors import SpecError, StoreError

TEN = Roi((0,), (10,))


def nothing(block: object) -> None:
    pass


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("is_folder", [False, True])
def test_a_run_does_not_take_a_folder_that_holds_somebodys_files_of_its_names(
    tmp_path: Path, name: str, is_folder: bool
) -> None:
    """Refused with the name, and every byte as it was."""
    if is_folder:
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").write_text("years of work")
    else:
        (tmp_path / name).write_text("years of work")
    before = everything(tmp_path)
    with pytest.raises(StoreError, match=f"is no run's, and holds '{name}'"):
        run_blockwise(TEN, TEN, TEN, nothing, run_dir=tmp_path)
    assert everything(tmp_path) == before


def test_files_of_other_names_stay_beside_a_run(tmp_path: Path) -> None:
    """Also in folders that we use too, and when the run is started over."""
    for name in ("notes.txt", "functions/model.pkl", "logs/mine.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("years of work")
    before = everything(tmp_path)
    for _ in range(2):
        assert run_blockwise(TEN, TEN, TEN, lambda block: None, run_dir=tmp_path)
    assert everything(tmp_path).items() >= before.items()


class Prepares(Task):
    """Makes its output where the run is, as many scripts do."""

    out = Parameter()

    def prepare(self) -> None:
        for name in ("out.zarr/0", "logs/mine.txt", "functions/model.pkl"):
            (Path(self.out) / name).parent.mkdir(parents=True, exist_ok=True)
            (Path(self.out) / name).write_text("years of work")
        self.schedule(TEN, TEN, TEN, nothing, num_workers=0)


def test_a_start_that_is_refused_leaves_what_prepare_made(tmp_path: Path) -> None:
    """The new folder goes only where nothing of anybody else is in it."""
    out = tmp_path / "new" / "run"
    with pytest.raises(SpecError, match="num_workers is 0"):
        distribute([Prepares(out=str(out))], run_dir=out)
    assert sorted(everything(out)) == ["functions/model.pkl", "logs/mine.txt", "out.zarr/0"]
    with pytest.raises(SpecError, match="no task to run"):
        distribute([], run_dir=tmp_path / "other")
    assert not (tmp_path / "other").exists()


def report(run: Path, output: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "blockyard.cli", "report", str(run), "-o", str(output)]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def test_a_report_overwrites_reports_alone(tmp_path: Path) -> None:
    """A second report replaces the first; any other file is left and said."""
    assert run_blockwise(TEN, TEN, TEN, nothing, run_dir=tmp_path / "run")
    output = tmp_path / "run.html"
    for _ in range(2):
        assert report(tmp_path / "run", output).returncode == 0
    assert b"blockyard report" in output.read_bytes()
    for content in ("<!doctype html><title>mine</title>", ""):
        output.write_text(content)
        done = report(tmp_path / "run", output)
        assert done.returncode == 2
        assert "is no report of blockyard" in done.stderr
        assert output.read_text() == content


def test_make_clean_removes_an_environment_that_make_made_and_no_output(tmp_path: Path) -> None:
    """Neither an environment of somebody's own, nor the demo's output, nor what tools of others made."""
    root = Path(__file__).resolve().parents[2]
    (tmp_path / "Makefile").write_bytes((root / "Makefile").read_bytes())
    mine = ["mine/bin/python", "demo-output/labels", "dist/thesis.pdf", "build/thesis.tex", "src/kept.py"]
    ours = [".venv/.made-by-make", ".venv/bin/python", "src/__pycache__/x.pyc", ".ruff_cache/x"]
    for name in [*mine, *ours, *(f"{name}/x" for name in ("services", "tests", "examples", "benchmarks", "helm"))]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("years of work")
    for arguments in (["VENV=mine"], []):
        subprocess.run(["make", "-C", tmp_path, "clean", *arguments], check=True, capture_output=True)
    left = everything(tmp_path)
    assert [name for name in mine if name not in left] == []
    assert [name for name in ours if name in left] == []


def test_make_does_not_turn_a_folder_of_somebodys_into_an_environment(tmp_path: Path) -> None:
    """It was removed where making one failed."""
    root = Path(__file__).resolve().parents[2]
    (tmp_path / "Makefile").write_bytes((root / "Makefile").read_bytes())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    done = subprocess.run(
        ["make", "-C", tmp_path, "VENV=mine", f"PYTHON={sys.executable} -c 'raise SystemExit(1)'", "mine/bin/python"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "is no environment that this makes" in done.stderr
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
