"""What the scheduler must be allowed to do, and how to say what it is not."""

from __future__ import annotations

from dataclasses import dataclass

import yaml

from blockyard_scheduler.scaling.config import Scaling


@dataclass(frozen=True, slots=True)
class Right:
    """One verb on one resource, in the release's namespace."""

    group: str
    resource: str
    verb: str
    name: str = ""
    """Of the only object it is needed for; empty: all."""
    subresource: str = ""

    @property
    def path(self) -> str:
        """As a Role names it."""
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource


def needed(scaling: Scaling) -> list[Right]:
    """Return the rights that are used: to scale pools, to say why pods are missing, to read what blocks wrote."""
    rights = [
        Right("apps", "deployments", "get"),
        Right("", "pods", "list"),
        Right("", "pods", "patch"),
        Right("", "pods", "get", subresource="log"),
        Right("", "events", "list"),
        Right("", "events", "create"),
    ]
    for pool in scaling.pools.values():
        rights += [Right("apps", "deployments", verb, pool.deployment, "scale") for verb in ("get", "patch")]
    return rights


def rules(missing: list[Right]) -> str:
    """Return the rules that a Role lacks, as YAML to paste into it.

    >>> print(rules([Right("apps", "deployments", "patch", "em-worker-default", "scale")]), end="")
    - apiGroups: [apps]
      resources: [deployments/scale]
      resourceNames: [em-worker-default]
      verbs: [patch]
    """
    found: dict[tuple[str, str, str], list[str]] = {}
    for right in missing:
        found.setdefault((right.group, right.path, right.name), []).append(right.verb)
    listed = [
        {"apiGroups": [group], "resources": [path]} | ({"resourceNames": [name]} if name else {}) | {"verbs": verbs}
        for (group, path, name), verbs in found.items()
    ]
    return str(yaml.safe_dump(listed, sort_keys=False, default_flow_style=None))
