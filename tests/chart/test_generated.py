"""What is made from the chart is what the chart would make now; what is said in several places is the same."""

from __future__ import annotations

import re
import tomllib

import pytest
import yaml
from chart import CHART, CI_VALUES, OLDEST, ROOT

import blockyard
from blockyard.spec.load import load_pipeline
from blockyard.spec.settings import SETTINGS, parse_settings

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
DEMO = ROOT / "examples" / "kubernetes" / "demo"


def compose() -> dict:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())


def test_nothing_that_is_generated_has_drifted():
    """Schema, README, dashboard, k8s/ and compose's alerts are what `make manifests` writes now."""
    from everything import generated, manifests

    for make in (generated, manifests):
        for path, text in make().items():
            assert path.read_text() == text, f"{path.relative_to(ROOT)} differs; run 'make manifests'"


def test_k8s_holds_no_file_that_is_not_generated():
    """An object that the chart no longer makes leaves no file behind."""
    from manifests import FOLDER, manifests

    assert {path for path in FOLDER.iterdir() if path.name != "README.md"} == set(manifests())


def test_the_kustomization_names_every_file(run_tool):
    """kubectl itself builds k8s/, and finds every object with its namespace."""
    import toolchain

    objects = list(yaml.safe_load_all(run_tool(toolchain.kubectl(), "kustomize", ROOT / "k8s")))
    assert len(objects) == len(list((ROOT / "k8s").glob("*.yaml"))) - 1
    assert {one["metadata"].get("namespace") for one in objects if one["kind"] != "Namespace"} == {"demo"}


def test_no_secret_is_committed():
    """k8s/ names the Secret that a person makes, and holds none."""
    texts = [path.read_text() for path in (ROOT / "k8s").glob("*.yaml")]
    assert not any("kind: Secret\n" in text for text in texts)
    assert any("secretName: blockyard-secrets" in text for text in texts)


def test_versions_agree():
    """The distribution, the chart, the images and what names them have one version."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == chart["version"] == VERSION == blockyard.__version__
    assert chart["kubeVersion"] == f">={OLDEST}.0-0"
    for path in (*ROOT.glob("services/*/Dockerfile"), ROOT / "examples" / "kubernetes" / "Dockerfile"):
        said = re.findall(r"VERSION=(\S+)$|blockyard-\w+:(\d[\w.]*)", path.read_text(), re.MULTILINE)
        assert {one or other for one, other in said} == {VERSION}, path
    for service in ("scheduler", "worker"):
        assert compose()["services"][service]["image"].split(":")[1].removesuffix("-demo") == VERSION
    assert yaml.safe_load((DEMO / "values.yaml").read_text())["worker"]["image"]["tag"] == f"{VERSION}-demo"


def test_images_start_as_the_chart_starts_them():
    """The entry point is `blockyard`, the user is a number and the one that the chart sets, ports are the settings'."""
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    for path in ROOT.glob("services/*/Dockerfile"):
        text = path.read_text()
        assert f"USER {values['security']['runAsUser']}:{values['security']['runAsGroup']}\n" in text
        assert 'ENTRYPOINT ["blockyard"]' in text
        assert "HEALTHCHECK" in text
        assert "STOPSIGNAL" not in text  # SIGTERM, which drains
        assert re.search(r"^ARG BASE=\S+:\d+\.\d+\.\d+-slim-\w+$", text, re.MULTILINE)
    defaults = {setting.flag: setting.default for setting in SETTINGS}
    assert (defaults["port"], defaults["http-port"]) == (8470, 8471)


def test_the_build_context_holds_what_the_dockerfiles_copy():
    """.dockerignore lets in every source of a COPY, and little else."""
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        source
        for path in ROOT.glob("services/*/Dockerfile")
        for line in re.findall(r"^COPY (?!--from)(.*) \S+$", path.read_text(), re.MULTILINE)
        for source in line.split()
    }
    assert copied == let_in
    assert all((ROOT / name).exists() for name in let_in)


@pytest.mark.parametrize("service", ["scheduler", "worker"])
def test_compose_gives_services_settings_they_understand(service):
    """Each argument is a setting of that service, and the pipeline is there."""
    name, *flags = compose()["services"][service]["command"]
    settings = parse_settings(name, flags, {"BLOCKYARD_TOKEN": "x"})
    assert name == service
    if service == "scheduler":
        assert settings.pipeline == "/etc/blockyard/head.yaml"
        assert load_pipeline(DEMO / "head.yaml").name == "demo"


def test_compose_restarts_checks_and_hides():
    """Every service is watched and restarted, and listens on this machine only."""
    for name, service in compose()["services"].items():
        assert service["restart"] in {"unless-stopped", "on-failure"}, name
        assert "healthcheck" in service or name in {"scheduler", "worker"}, name  # these two: in their images
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
    assert "container_name" not in compose()["services"]["worker"]
    assert "ports" not in compose()["services"]["worker"]


def test_compose_mounts_what_is_there():
    """Each folder and file that is mounted exists, and each volume is declared."""
    declared = compose()["volumes"].keys()
    for service in compose()["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (ROOT / source).exists() if source.startswith(".") else source in declared, volume


@pytest.mark.program("promtool")
def test_promtool_accepts_the_configuration_of_compose(run_tool):
    """Prometheus would start with deploy/compose/prometheus.yml and its rules."""
    run_tool("promtool", "check", "config", ROOT / "deploy" / "compose" / "prometheus.yml")


def test_prometheus_of_compose_gives_the_labels_that_alerts_choose_by():
    """namespace and release are what the rules name, for scheduler and workers."""
    jobs = yaml.safe_load((ROOT / "deploy" / "compose" / "prometheus.yml").read_text())["scrape_configs"]
    scheduler = jobs[0]["static_configs"][0]["labels"]
    worker = {one["target_label"]: one["replacement"] for one in jobs[1]["relabel_configs"]}
    assert scheduler == {"namespace": "compose", "release": "demo", "component": "scheduler"}
    assert worker == scheduler | {"component": "worker"}
    assert 'namespace="compose",release="demo"' in (ROOT / "deploy" / "compose" / "alerts.yml").read_text()


def test_the_demo_of_the_cluster_is_the_demo(monkeypatch):
    """head.yaml is what demo.py makes for the head, behind a task that makes the arrays."""
    monkeypatch.syspath_prepend(ROOT / "examples" / "demo")
    import demo
    import inputs

    from blockyard.spec.load import load_text

    volume = inputs.load(inputs.head())
    settings = demo.choose(volume, None, None, 100.0)
    local = load_text(demo.pipeline(settings, "head.zarr")).tasks
    prepare, *others = load_pipeline(DEMO / "head.yaml").tasks
    assert (prepare.id, tuple(prepare.params["chunk"])) == ("prepare", settings.block)
    assert others[0].requires == ("prepare",)
    assert [one.params for one in others] == [one.params for one in local]
    for one, other in zip(others, local, strict=True):
        for roi in ("total_roi", "read_roi", "write_roi", "fit", "read_write_conflict"):
            assert getattr(one, roi) == getattr(other, roi)


def test_the_example_of_a_users_own_pipeline_fits_the_chart(render):
    """The pipeline file is a values file; the user's image and the pool with GPUs are what its values say."""
    folder = ROOT / "examples" / "kubernetes"
    assert load_pipeline(folder / "pipeline.yaml").name == "em-cells"
    rendering = render(*(folder / name for name in ("pipeline.yaml", "values.yaml", "gpu-values.yaml")))
    assert rendering.container("Deployment", "seg-worker-default")["image"] == "registry.example.org/me/em-cells:1"
    assert rendering.container("Deployment", "seg-worker-gpu")["image"] == "registry.example.org/me/em-cells-gpu:1"


def test_every_file_of_ci_has_a_purpose():
    """The first line of each says what it stands for."""
    for path in CI_VALUES:
        assert path.read_text().startswith("# "), path
