"""k8s/: the chart rendered for `kubectl apply -k`, one object a file, with the demo's pipeline."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import yaml
from paths import CHART, EXAMPLES, ROOT
from toolchain import helm

FOLDER = ROOT / "k8s"
RELEASE = NAMESPACE = "demo"
SECRET = "blockyard-secrets"  # noqa: S105  # its name
VALUES = [EXAMPLES / "kubernetes" / "demo" / name for name in ("head.yaml", "values.yaml")]
CODE = {
    "head": EXAMPLES / "kubernetes" / "demo" / "head.py",
    **{name: EXAMPLES / "demo" / f"{name}.py" for name in ("demo", "image_files", "inputs", "owned", "watershed")},
}
SETTINGS = {
    # Secrets are not committed: README.md says how to make this one.
    "token.existingSecret": SECRET,
    "redis.auth.existingSecret": SECRET,
    "tests.enabled": "false",
}

Object = dict[str, Any]


def manifests() -> dict[Path, str]:
    """Give all files of k8s/ with their texts, but README.md."""
    objects = {f"{_file_name(one)}.yaml": _plain(one) for one in rendered()}
    files = {FOLDER / name: dumped(one) for name, one in objects.items()}
    files[FOLDER / "namespace.yaml"] = dumped(_namespace())
    files[FOLDER / "kustomization.yaml"] = dumped(_kustomization(["namespace.yaml", *sorted(objects)]))
    return files


def rendered() -> list[Object]:
    """Give the objects of the chart for the demo."""
    command = [str(helm()), "template", RELEASE, str(CHART), "--namespace", NAMESPACE]
    for path in VALUES:
        command += ["--values", str(path)]
    for name, value in SETTINGS.items():
        command += ["--set", f"{name}={value}"]
    for module, path in CODE.items():
        command += ["--set-file", f"code.{module}={path}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [one for one in yaml.safe_load_all(done.stdout) if one]


def _file_name(one: Object) -> str:
    return f"{one['metadata']['name'].removeprefix(RELEASE + '-')}-{one['kind'].lower()}"


def _plain(one: Object) -> Object:
    """Take out what only helm needs; where the objects are is said once, by the kustomization."""
    for metadata in (one["metadata"], one.get("spec", {}).get("template", {}).get("metadata", {})):
        for name in ("helm.sh/chart", "app.kubernetes.io/managed-by"):
            metadata.get("labels", {}).pop(name, None)
        metadata.get("annotations", {}).pop("helm.sh/resource-policy", None)
        if not metadata.get("annotations", True):
            del metadata["annotations"]
    return one


def _namespace() -> Object:
    labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}


def _kustomization(resources: list[str]) -> Object:
    names = ("blockyard-scheduler", "blockyard-worker")
    images = [{"name": name, "newName": name} for name in names]
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": NAMESPACE,
        "resources": resources,
        "images": images,
    }


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as they are."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def dumped(one: Object) -> str:
    """Write one object as YAML."""
    head = "# Made by `make manifests` from helm/blockyard; change the chart, not this file.\n"
    return head + yaml.dump(one, Dumper=_Dumper, sort_keys=False, width=120)
