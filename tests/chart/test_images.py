"""The images, built for real by buildah on a base made locally by mmdebstrap, and run.

Takes minutes, so it runs only when asked (`BLOCKYARD_IMAGES=1`), as root, with both programs.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from chart import ROOT

pytestmark = [pytest.mark.program("buildah"), pytest.mark.program("mmdebstrap"), pytest.mark.timeout(3000)]

BASE = "localhost/blockyard-test-base:bookworm"
PYTHON = "3.11"
"""That of Debian bookworm."""
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "any")
LATER = ("scipy", "zarr", "async-timeout")
"""For the user's image, and what redis needs on Pythons before 3.11.3."""


class Builder:
    """buildah with a store of its own."""

    def __init__(self, folder: Path) -> None:
        self.wheels = folder / "wheels"
        self._command = ["buildah", "--root", str(folder / "store"), "--runroot", str(folder / "run")]
        self._environment = os.environ | {"BUILDAH_ISOLATION": "chroot", "STORAGE_DRIVER": "overlay"}

    def __call__(self, *arguments: object) -> str:
        command = [*self._command, *map(str, arguments)]
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{arguments}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    def build(self, name: str, dockerfile: Path, context: Path, *options: str) -> None:
        """Build without a network: pip takes the wheels that were loaded before."""
        pip = ("--env", "PIP_NO_INDEX=1", "--env", "PIP_FIND_LINKS=/wheels")
        arguments = ("--build-arg", "PIP_NO_INDEX=1", "--build-arg", "PIP_FIND_LINKS=/wheels")
        self(
            *("bud", "--layers", "--format", "docker", "--pull-never", "--volume", f"{self.wheels}:/wheels:ro"),
            *(*pip, *arguments, *options, "--file", dockerfile, "--tag", name, context),
        )

    def run(self, image: str, *command: str, volume: str = "") -> str:
        """Run a command in a new container as the image's user."""
        container = self("from", "--pull-never", image).strip()
        volumes = ("--volume", volume) if volume else ()
        try:
            return self("run", *volumes, container, "--", *command)
        finally:
            self("rm", container)

    def config(self, image: str) -> dict:
        return json.loads(self("inspect", "--type", "image", image))["Docker"]["config"]


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    build = Builder(folder)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"]["scheduler"], "hatchling", *LATER]
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    download = ["-m", "pip", "download", "--quiet", "--only-binary=:all:", "--python-version", PYTHON, *platforms]
    subprocess.run([sys.executable, *download, "--dest", str(build.wheels), *needed], check=True)
    packages = "--include=python3,python3-venv,ca-certificates"
    base = folder / "base.tar"
    subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", packages, "bookworm", str(base)], check=True)
    container = build("from", "scratch").strip()
    build("add", container, base, "/")
    build("commit", container, BASE)
    for service in ("scheduler", "worker"):
        dockerfile = ROOT / "services" / service / "Dockerfile"
        build.build(f"blockyard-{service}:0.1.0", dockerfile, ROOT, "--build-arg", f"BASE={BASE}")
    yield build
    build("rmi", "--all", "--force")
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("service", ["scheduler", "worker"])
def test_an_image_is_small_and_harmless(builder, service):
    """Non-root by number, labelled, watched, no compiler, and nothing that it needs is missing."""
    image = f"blockyard-{service}:0.1.0"
    config = builder.config(image)
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["blockyard"]
    assert config["Labels"]["org.opencontainers.image.version"] == "0.1.0"
    assert "/healthz" in config["Healthcheck"]["Test"][-1]
    assert builder.run(image, "id", "-u").strip() == "10001"
    assert not builder.run(image, "sh", "-c", "command -v gcc cc ld make || true").strip()
    assert f"usage: blockyard {service}" in builder.run(image, "blockyard", service, "--help")


@pytest.mark.parametrize("service", ["scheduler", "worker"])
def test_an_image_runs_a_pipeline(builder, service):
    """The pipeline of `helm test`, with the Redis, scheduler and worker of one image."""
    script = "cp -r /chart-tests /tmp/tiny && cd /tmp/tiny && blockyard run tiny.yaml --workers 1 && ls /tmp/tiny-out"
    volume = f"{ROOT / 'helm' / 'blockyard' / 'tests'}:/chart-tests:ro"
    output = builder.run(f"blockyard-{service}:0.1.0", "sh", "-ec", script, volume=volume)
    assert set(map(str, range(16))) <= set(output.split())


def test_a_users_image_is_three_lines_more(builder):
    """FROM, COPY, RUN pip install: the function is found, with what it needs, by the same user."""
    folder = ROOT / "examples" / "kubernetes"
    dockerfile = folder / "Dockerfile"
    assert [line.split()[0] for line in dockerfile.read_text().splitlines()] == ["FROM", "COPY", "RUN"]
    builder.build("em-cells:1", dockerfile, folder)
    assert builder.run("em-cells:1", "python3", "-c", "import em_cells; print(em_cells.Smooth)").strip()
    assert builder.config("em-cells:1")["User"] == "10001:10001"
