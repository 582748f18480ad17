"""Values that can't work are refused before anything reaches the cluster, with words that say what to do."""

from __future__ import annotations

import pytest
from chart import TINY, Refused


@pytest.mark.parametrize(
    ("values", "sets", "words"),
    [
        ("{}", (), "There is no pipeline. Give its file: helm install NAME CHART -f pipeline.yaml"),
        (TINY, ("name=",), "The pipeline has 'tasks:' but no 'name:'"),
        ("{}", ("pipeline.name=other",), "missing property 'tasks'"),
        ({"pipeline": {"name": "x", "tasks": []}}, (), "minItems: got 0, want 1"),
        (TINY, ("tasks[0].fit=shrin",), "value must be one of 'overhang', 'shrink', 'valid'"),
        (TINY, ("tasks[0].retries=3",), "at '/tasks/0': additional properties 'retries' not allowed"),
        (TINY, ("tasks[0].total_roi.shape[0]=many",), "at '/tasks/0/total_roi/shape/0': got string, want integer"),
        (TINY, ("tasks[0].max_retries=-1",), "minimum: got -1, want 0"),
        (TINY, ("tasks[0].pool=gpu",), "Task 'copy' wants pool 'gpu', which is none of 'pools:' (default)"),
        (TINY + "    params: {n: 3}\n", (), "write the name in quotes"),
        (TINY + "    params: {ids: [{a: 720575940621039145}]}\n", (), "'copy' has the number 7205759406210391"),
        (TINY + "    params: {low: -9007199254740993}\n", (), "helm rounds whole numbers of more than 53 bits"),
        (TINY, ("pools.default=null",), "at '/pools': minProperties: got 0, want 1"),
        (TINY, ("pools.GPU.slots=1",), "'GPU' does not match pattern"),
        (TINY, ("pools.default.slotz=2",), "at '/pools/default': additional properties 'slotz' not allowed"),
        (TINY, ("pools.default.slots=0",), "minimum: got 0, want 1"),
        (TINY, ("replicas=3",), "additional properties 'replicas' not allowed"),
        (TINY, ("worker.replicas=3",), "at '/worker': additional properties 'replicas' not allowed"),
        (
            TINY,
            ("worker.autoscaling.min=20",),
            "Pool 'default': autoscaling.min is 20, which is more than autoscaling.max",
        ),
        (
            TINY,
            ("pools.default.task=paste",),
            "Pool 'default' is for task 'paste', which is none of the pipeline's (copy)",
        ),
        (TINY, ("worker.resources.limits.memory=batches",), "does not match pattern"),
        (TINY, ("worker.image.digest=abc",), "does not match pattern"),
        (TINY, ("code.my-module=x",), "'my-module' does not match pattern"),
        (TINY, ("run.onEnd=never",), "value must be one of 'stay', 'exit'"),
        (TINY, ("run.request=0-5",), "does not match pattern"),
        (TINY, ("run.onEnd=exit", "scheduler.replicas=2"), "'scheduler.replicas' must be 1"),
        (TINY, ("timing.lease=3",), "a lease must last three heartbeats at least"),
        (TINY, ("redis.enabled=false",), "'redis.external.url' is needed"),
        (TINY, ("redis.external.url=redis://h:6379/0",), "'redis.enabled' is true; set it to false"),
        (TINY, ("redis.enabled=false", "redis.external.url=redis://:pw@h:6379/0"), "holds a password"),
        (TINY, ("redis.appendfsync=no",), "value must be one of 'always', 'everysec'"),
        (TINY, ("data.create=true", "data.existingClaim=mine"), "give one of them"),
        (TINY, ("ingress.enabled=true",), "'ingress.host' is needed"),
        (TINY, ("tls.http=true",), "'tls.existingSecret' is needed"),
        (TINY, ("security.runAsUser=0",), "minimum: got 0, want 1"),
        (TINY, ("monitoring.rules.disabled={PipelineStaled}",), "value must be one of"),
        (TINY, ("networkPolicy.pageFrom[0].podSelectr=x",), "additional properties 'podSelectr' not allowed"),
    ],
)
def test_refused(render, values, sets, words):
    """helm stops, and its message has the words that help."""
    with pytest.raises(Refused) as refused:
        render(values, sets=sets)
    assert words in str(refused.value)
    assert "nil pointer" not in str(refused.value)


def test_the_pipeline_is_given_once(render):
    """A pipeline file as values file and `pipeline:` too: which one is meant?"""
    with pytest.raises(Refused, match="Give the pipeline once"):
        render(TINY, {"pipeline": {"name": "x", "tasks": [{"id": "a", "function": "m:f"} | rois()]}})


def rois() -> dict:
    return {roi: {"offset": [0], "shape": [1]} for roi in ("total_roi", "read_roi", "write_roi")}
