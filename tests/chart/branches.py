"""Which branches of the templates some values take: a mark in each that shows in the output, or a trap that stops helm.

Marks make the output useless as YAML, which helm prints all the same when asked to debug; one rendering shows all of
them. Where a template's output is read by another template (as JSON, a number, a name), a mark would change what
happens, so these branches get traps, each taken out when it was sprung.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ACTION = re.compile(r"\{\{-?\s*(/\*.*?\*/|(?P<word>if|with|range|else|end|define)\b.*?)\s*-?\}\}", re.DOTALL)
PRINTED = {"_pod.tpl", "_pods.tpl"}
"""Named templates whose output is only printed."""


@dataclass(frozen=True)
class Branch:
    """One side of an `if`, `with` or `range`."""

    number: int
    file: Path
    line: int
    action: str
    offset: int
    """Where in the file its mark goes."""
    implied: bool
    """An `else` that is not written."""

    @property
    def kind(self) -> str:
        """How it is watched."""
        if self.file.name == "NOTES.txt":
            return "note"
        return "mark" if self.file.suffix == ".yaml" or self.file.name in PRINTED else "trap"

    def watched(self) -> str:
        """Give what is put into the template."""
        name = f'"BRANCH-{self.number}-"'
        action = f"{{{{ fail {name} }}}}" if self.kind == "trap" else f"{{{{ print {name} }}}}"
        return "{{ else }}" + action if self.implied else action

    def only_in_a_cluster(self) -> bool:
        """Whether it depends on `lookup`, which finds nothing when rendering offline."""
        return "$there" in self.action and not self.implied

    def __str__(self) -> str:
        return f"{self.file.name}:{self.line}: {'not ' if self.implied else ''}{self.action}"


class Templates:
    """The templates of a copy of the chart, with their branches."""

    def __init__(self, chart: Path) -> None:
        self.texts = {file: file.read_text() for file in sorted((chart / "templates").rglob("*.*"))}
        self.branches: list[Branch] = []
        for file, text in self.texts.items():
            self._find(file, text)

    def _find(self, file: Path, text: str) -> None:
        """Find all branches of a file, but those whose first act is to refuse the values."""
        opened: list[tuple[str, str, int]] = []
        for match in ACTION.finditer(text):
            word, line = match["word"], text.count("\n", 0, match.start()) + 1
            refuses = text[match.end() :].lstrip().startswith("{{- fail")
            if word == "end":
                start, action, line = opened.pop()
                if start in {"if", "with"}:
                    self._add(file, line, action, match.start(), True)
                continue
            if word == "else":
                opened[-1] = ("else", *opened[-1][1:])
            elif word is not None:
                opened.append(("refusal" if refuses else word, match[0], line))
            if word not in {None, "define"} and not refuses:
                self._add(file, line, match[0], match.end(), False)

    def _add(self, *of: object) -> None:
        self.branches.append(Branch(len(self.branches) + 1, *of))

    def watch(self, branches: set[Branch]) -> None:
        """Write the templates with these branches watched, and no others."""
        for file, text in self.texts.items():
            result = text
            ours = [branch for branch in branches if branch.file == file]
            for branch in sorted(ours, key=lambda branch: (-branch.offset, branch.implied)):
                result = result[: branch.offset] + branch.watched() + result[branch.offset :]
            file.write_text(result)

    def seen(self, text: str) -> set[Branch]:
        """Give the branches whose marks are in a text."""
        numbers = {int(number) for number in re.findall(r"BRANCH-(\d+)-", text)}
        return {branch for branch in self.branches if branch.number in numbers}

    def of_kind(self, kind: str) -> set[Branch]:
        """Give the branches that are watched that way."""
        return {branch for branch in self.branches if branch.kind == kind}
