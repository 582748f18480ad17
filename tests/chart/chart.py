"""The chart under test: its files, and its objects as helm renders them."""

from __future__ import annotations

import base64
import copy
import itertools
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "blockyard"
CI_VALUES = sorted((CHART / "ci").glob("*-values.yaml"))
OLDEST, NEWEST = "1.29", "1.37"
"""Supported versions of Kubernetes: the one in Chart.yaml, and the newest whose API is known here."""
TINY = """
name: tiny
tasks:
  - id: copy
    function: tiny:copy
    total_roi: {offset: [0], shape: [100]}
    read_roi: {offset: [0], shape: [10]}
    write_roi: {offset: [0], shape: [10]}
"""


class Refused(Exception):
    """helm would not render; the text is its complaint."""


@dataclass
class Rendering:
    """All objects of a release."""

    objects: list[dict] = field(default_factory=list)

    def of(self, kind: str) -> dict[str, dict]:
        """Give the objects of a kind by name."""
        return {one["metadata"]["name"]: one for one in self.objects if one["kind"] == kind}

    def one(self, kind: str, name: str) -> dict:
        return self.of(kind)[name]

    def pods(self) -> dict[str, dict]:
        """Give the pod specifications by ``kind/name`` of what makes them."""
        found = {}
        for one in self.objects:
            if one["kind"] == "Pod":
                found[f"Pod/{one['metadata']['name']}"] = one["spec"]
            elif one["kind"] in {"Deployment", "StatefulSet", "Job"}:
                found[f"{one['kind']}/{one['metadata']['name']}"] = one["spec"]["template"]["spec"]
        return found

    def container(self, kind: str, name: str) -> dict:
        (container,) = self.pods()[f"{kind}/{name}"]["containers"]
        return container

    def without_chance(self) -> list[dict]:
        """Give the objects with each generated secret replaced by one word, so that two renderings can be compared."""
        objects = copy.deepcopy(self.objects)
        for one in objects:
            for key, value in (one.get("data") or {}).items() if one["kind"] == "Secret" else ():
                if re.fullmatch(rb"[A-Za-z0-9]{40}", base64.b64decode(value)):
                    one["data"][key] = "generated"
        return objects


class Renderer:
    """Renders release `seg` in namespace `lab`."""

    def __init__(self, helm: Path, folder: Path) -> None:
        self.helm, self.folder = helm, folder
        self._numbers = itertools.count()
        self._rendered: dict[tuple, str] = {}

    def __call__(
        self, *values: Path | str | dict, sets: tuple[str, ...] = (), options: tuple[str, ...] = (), again: bool = False
    ) -> Rendering:
        """Render, or give what the same arguments gave before; `again` renders in any case."""
        key = (*map(repr, values), sets, options)
        if again or key not in self._rendered:
            self._rendered[key] = self.run("template", *values, sets=sets, options=options)
        return Rendering([one for one in yaml.load_all(self._rendered[key], yaml.CSafeLoader) if one is not None])

    def everything(self, *values: Path | str | dict, chart: Path = CHART) -> str:
        """Give all that an installation would make and say, as text, with one word for each generated secret."""
        text = self.run("install", *values, options=("--dry-run=client",), chart=chart)
        text = re.sub(r"^LAST DEPLOYED: .*$", "", text, flags=re.MULTILINE)
        return re.sub(r": [A-Za-z0-9+/]{54}==$", ": generated", text, flags=re.MULTILINE)

    def notes(self, *values: Path | str | dict, sets: tuple[str, ...] = ()) -> str:
        """Give what `helm install` would print at its end."""
        return self.run("install", *values, sets=sets, options=("--dry-run=client",)).partition("\nNOTES:\n")[2]

    def run(self, verb: str, *values: Path | str | dict, sets=(), options=(), chart: Path = CHART) -> str:
        """Give what helm prints, or raise `Refused` with its complaint."""
        done = self._done(verb, *values, sets=sets, options=options, chart=chart)
        if done.returncode:
            raise Refused(done.stderr)
        return done.stdout

    def output(self, verb: str, *values: Path | str | dict, options=(), chart: Path) -> str:
        """Give what helm prints and complains of, whatever it thinks of it."""
        done = self._done(verb, *values, options=options, chart=chart)
        return done.stdout + done.stderr

    def _done(self, verb, *values, sets=(), options=(), chart=CHART) -> subprocess.CompletedProcess[str]:
        command = [str(self.helm), verb, "seg", str(chart), "--namespace", "lab", *options]
        for one in values:
            command += ["--values", str(self._file(one))]
        for one in sets:
            command += ["--set", one]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def _file(self, values: Path | str | dict) -> Path:
        if isinstance(values, Path):
            return values
        path = self.folder / f"{next(self._numbers)}.yaml"
        path.write_text(values if isinstance(values, str) else yaml.safe_dump(values))
        return path


def leaves(values: dict, known: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Give the paths in `values` that are values of the chart, by the paths that values.yaml has."""
    found: list[tuple[str, ...]] = []

    def walk(node: object, path: tuple[str, ...]) -> None:
        if as_documented(path) in known:
            found.append(path)
        if path == ("pools",) or (as_documented(path) not in known and isinstance(node, dict)):
            for key, value in node.items():
                walk(value, (*path, key))

    walk(values, ())
    return found


def as_documented(path: tuple[str, ...]) -> tuple[str, ...]:
    """Give the path under which values.yaml explains a value: a pool's are those of `worker`."""
    return ("worker", *path[2:]) if path[:1] == ("pools",) and len(path) > 2 else path


def without(values: dict, path: tuple[str, ...]) -> dict:
    """Give a copy of `values` in which the value at `path` is not said."""
    result = copy.deepcopy(values)
    node = result
    for key in path[:-1]:
        node = node[key]
    del node[path[-1]]
    return result
