"""The layers of the library are one list: that which the imports are held to, and what a newcomer reads."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ARROWS = re.compile(r"^`(\w+ -> .+)`$", re.MULTILINE)


def held():
    """The packages of the first contract, without the modules that lie beside them."""
    contract = PROJECT["tool"]["importlinter"]["contracts"][0]
    assert contract["exhaustive"]
    layers = [
        [name for name in layer.split(" | ") if (ROOT / "src/blockyard" / name).is_dir()]
        for layer in contract["layers"]
    ]
    return [layer for layer in layers if layer]


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_what_is_written_of_the_layers_is_what_is_held(page):
    """In the same order, with the same neighbours."""
    (written,) = ARROWS.findall((ROOT / page).read_text())
    assert [layer.strip("()").split(" | ") for layer in written.split(" -> ")] == held()
