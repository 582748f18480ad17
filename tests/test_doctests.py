"""The examples in docstrings are true."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

PACKAGES = ("blockyard", "blockyard_scheduler", "blockyard_worker")


def modules_with_examples() -> list[str]:
    """Find the modules whose source has a prompt, without importing those that have none."""
    found = []
    for package in PACKAGES:
        for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            spec = importlib.util.find_spec(module.name)
            if spec is not None and spec.loader is not None and ">>> " in (spec.loader.get_source(module.name) or ""):
                found.append(module.name)
    return found


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_in_docstrings(name: str) -> None:
    """Each example gives what it says."""
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.attempted > 0
    assert result.failed == 0
