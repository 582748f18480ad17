"""A scheduler that leads a run and scales its pool through the Kubernetes API of these tests."""

from __future__ import annotations

import contextlib

from kubernetes_api import NAMESPACE, RELEASE, Api, deployment
from scheduler_rig import run_of, serving, settings_of, task, until

from blockyard_scheduler import service as service_module
from blockyard_scheduler.scaling import api_errors as troubles_module
from blockyard_scheduler.scaling import autoscaler as autoscaler_module
from blockyard_scheduler.scaling.cluster import Cluster
from blockyard_scheduler.scaling.config import PoolScaling, Scaling

NAME = "em-worker-default"


@contextlib.asynccontextmanager
async def scaled(redis_url, run_name, monkeypatch, *, blocks=40, replicas=1, found=None, denied=(), **pool):
    """The API server and a scheduler of one pool, which looks often; `found`: the Deployment that is there."""
    monkeypatch.setattr(autoscaler_module, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(troubles_module, "FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(troubles_module, "LONGEST_PAUSE_S", 0.2)
    fields = {"deployment": NAME, "slots": 2, "max": 8} | pool
    scaling = Scaling(NAMESPACE, RELEASE, {"default": PoolScaling(**fields)})
    async with Api() as api:
        api.deployments[NAME] = found or deployment(NAME, replicas)
        api.denied.update(denied)
        monkeypatch.setattr(service_module, "Cluster", lambda scaling: Cluster(scaling, api.configuration))
        settings = settings_of(run_of(run_name, task(blocks=blocks)), redis_url, scaling=scaling)
        async with serving(settings) as service:
            await until(lambda: service.scaler is not None)
            yield api, service


def pool_of(service):
    return service.status().pools[0]
