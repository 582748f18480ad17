"""What the chart makes, rendered by a real helm for every file of ci/ and looked at object by object."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess

import kubernetes_validate
import pytest
import redis
import yaml
from chart import CHART, CI_VALUES, NEWEST, OLDEST, TINY, Refused
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from blockyard.local.redis import find_server
from blockyard.spec.load import load_text
from blockyard.spec.settings import parse_settings
from blockyard_scheduler.scaling.config import read_scaling
from blockyard_scheduler.scaling.rights import needed

EVERY = pytest.mark.parametrize("values", CI_VALUES, ids=lambda path: path.name.removesuffix("-values.yaml"))
CUSTOM = {"ServiceMonitor", "PodMonitor", "PrometheusRule"}
"""Kinds of the Prometheus operator: not part of Kubernetes' own API."""


@EVERY
def test_lint_finds_nothing(helm, run_tool, values):
    """`helm lint --strict` accepts the chart with each file of values."""
    assert "0 chart(s) failed" in run_tool(helm, "lint", "--strict", CHART, "--values", values)


@EVERY
@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_objects_are_what_kubernetes_takes(render, values, version):
    """Every object passes the strict schema of the oldest and the newest supported Kubernetes."""
    objects = render(values, options=("--kube-version", version)).objects
    assert len(objects) > 8
    for one in objects:
        if one["kind"] not in CUSTOM:
            kubernetes_validate.validate(one, version, strict=True)


@EVERY
def test_names_are_unique_and_short(render, values):
    """No two objects of a kind share a name, and no name is longer than a label may be."""
    names = [(one["kind"], one["metadata"]["name"]) for one in render(values).objects]
    assert len(names) == len(set(names))
    assert all(len(name) <= 63 for _, name in names)


@EVERY
def test_pods_pass_the_restricted_standard(render, values):
    """Every container is as the restricted Pod Security Standard wants it, and can't write to its image."""
    for pod in render(values).pods().values():
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"].get("runAsUser", 1) > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        assert {frozenset(volume) - {"name"} for volume in pod["volumes"]} <= {
            frozenset({kind}) for kind in ("configMap", "emptyDir", "secret", "persistentVolumeClaim")
        }
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


@EVERY
def test_every_container_says_what_it_needs(render, values):
    """Requests for CPU and memory and a limit of memory, or the cluster can't place it well."""
    for pod in render(values).pods().values():
        for container in pod["containers"]:
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
            assert "memory" in container["resources"]["limits"]


@EVERY
def test_only_the_scheduler_gets_a_token_of_the_cluster(render, values):
    """Workers run user code: they mount no token of the API server, nor does Redis."""
    for name, pod in render(values).pods().items():
        if not name.endswith("-scheduler") and "/seg-scheduler-" not in name:
            assert pod["automountServiceAccountToken"] is False, name


@EVERY
def test_secrets_are_files(render, values):
    """Token and password are mounted, never in the environment or among the arguments."""
    rendering = render(values)
    secrets = {
        base64.b64decode(value).decode() for one in rendering.of("Secret").values() for value in one["data"].values()
    }
    for pod in rendering.pods().values():
        text = json.dumps(pod)
        assert not any(secret in text for secret in secrets)
        for container in pod["containers"]:
            assert not any("secretKeyRef" in json.dumps(env) for env in container.get("env", []))


@EVERY
def test_services_understand_their_arguments(render, values):
    """Each flag in a container's arguments is a setting of that service with a good value."""
    for pod in render(values).pods().values():
        for container in pod["containers"]:
            service, *flags = container.get("args", [""])
            if service:
                parse_settings(service, flags, {})
                assert container["name"] == service


@EVERY
def test_the_scheduler_reads_the_pipeline_as_it_was_given(render, values):
    """The mounted file is the pipeline of the values, number for number: nothing became 2e+07 on the way."""
    given = yaml.safe_load(values.read_text())
    (config,) = (one for name, one in render(values).of("ConfigMap").items() if name.endswith("-pipeline"))
    expected = given.get("pipeline") or {"name": given["name"], "tasks": given["tasks"]}
    assert load_text(config["data"]["pipeline.yaml"]) == load_text(json.dumps(expected))
    assert not re.search(r"\de\+\d", config["data"]["pipeline.yaml"])


@EVERY
def test_worker_deployments_have_no_replicas(render, values):
    """With `replicas`, helm 4 refuses to upgrade after a `kubectl scale`, and helm 3 undoes it."""
    workers = {
        name: one
        for name, one in render(values).of("Deployment").items()
        if one["metadata"]["labels"]["app.kubernetes.io/component"] == "worker"
    }
    assert workers
    assert not any("replicas" in one["spec"] for one in workers.values())


@EVERY
def test_the_scheduler_knows_each_pool(render, values):
    """scaling.yaml names the Deployment of each pool, and the Role allows to scale exactly those."""
    rendering = render(values)
    pools = {name for name in rendering.of("Deployment") if "-worker-" in name}
    for name, one in rendering.of("ConfigMap").items():
        if name.endswith("-pipeline") and "scaling.yaml" in one["data"]:
            scaling = json.loads(one["data"]["scaling.yaml"])
            assert {pool["deployment"] for pool in scaling["pools"].values()} == pools
    for role in rendering.of("Role").values():
        (rule,) = (rule for rule in role["rules"] if rule["resources"] == ["deployments/scale"])
        assert set(rule["resourceNames"]) == pools


def test_the_role_is_what_is_needed_and_no_more(render):
    """One namespaced Role; no wildcard, no ClusterRole."""
    rendering = render(TINY)
    (role,) = rendering.of("Role").values()
    assert {(*rule["resources"], *sorted(rule["verbs"])) for rule in role["rules"]} == {
        ("deployments", "get", "list", "watch"),
        ("deployments/scale", "get", "patch"),
        ("pods", "get", "list", "patch", "watch"),
        ("pods/log", "get"),
        ("events", "create", "get", "list", "watch"),
    }
    assert not rendering.of("ClusterRole")
    (binding,) = rendering.of("RoleBinding").values()
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "seg-scheduler", "namespace": "lab"}]


def test_the_role_allows_all_that_the_scheduler_asks_for(render, tmp_path):
    """Each right of the preflight, for each pool of the file that is mounted, is in a rule."""
    rendering = render(TINY)
    (role,) = rendering.of("Role").values()
    (tmp_path / "scaling.yaml").write_text(rendering.of("ConfigMap")["seg-pipeline"]["data"]["scaling.yaml"])
    rights = needed(read_scaling(str(tmp_path / "scaling.yaml")))
    assert len(rights) >= 8
    for right in rights:
        assert any(
            right.group in rule["apiGroups"]
            and right.path in rule["resources"]
            and right.verb in rule["verbs"]
            and right.name in ("", *rule.get("resourceNames", ()))
            and (not rule.get("resourceNames") or right.name in rule["resourceNames"])
            for rule in role["rules"]
        ), right


def test_without_the_api_server_there_is_no_role_and_no_token(render):
    """`kubernetes.enabled: false` leaves nothing that could talk to it."""
    rendering = render(TINY, sets=("kubernetes.enabled=false",))
    assert not rendering.of("Role")
    assert rendering.pods()["Deployment/seg-scheduler"]["automountServiceAccountToken"] is False
    assert not any("--scaling" in arg for arg in rendering.container("Deployment", "seg-scheduler")["args"])


def test_redis_keeps_what_it_was_told(render):
    """Append-only, fsync always, no eviction, on a volume, with a password that is no argument."""
    rendering = render(TINY)
    conf = rendering.one("ConfigMap", "seg-redis")["data"]["redis.conf"].splitlines()
    assert {"appendonly yes", "appendfsync always", "maxmemory-policy noeviction"} <= set(conf)
    redis = rendering.one("StatefulSet", "seg-redis")["spec"]
    assert redis["volumeClaimTemplates"][0]["metadata"]["name"] == "data"
    assert redis["persistentVolumeClaimRetentionPolicy"]["whenDeleted"] == "Retain"


def test_redis_starts_as_the_chart_starts_it(render, tmp_path):
    """The container's own command and configuration, run by sh: any password works, and Redis keeps what it must."""
    password = 'quote " backslash \\ space'
    rendering = render(TINY)
    places = {"/etc/redis": "etc", "/run/secrets/redis": "secret", "/run/redis": "run", "/data": "data"}
    for folder in (*places.values(), "bin"):
        (tmp_path / folder).mkdir()
    (tmp_path / "bin" / "valkey-server").symlink_to(find_server())
    (tmp_path / "secret" / "password").write_text(password)

    def here(text: str) -> str:
        return re.sub("|".join(places), lambda place: str(tmp_path / places[place[0]]), text)

    socket = tmp_path / "s"
    conf = here(rendering.one("ConfigMap", "seg-redis")["data"]["redis.conf"])
    conf = conf.replace("port 6379\nbind * -::*", f"port 0\nunixsocket {socket}")
    (tmp_path / "etc" / "redis.conf").write_text(conf)
    shell = [here(word) for word in rendering.container("StatefulSet", "seg-redis")["command"]]
    environment = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    with subprocess.Popen(shell, env=environment, stdout=subprocess.DEVNULL) as process:
        try:
            retry = Retry(ConstantBackoff(0.05), 400, (redis.ConnectionError,))
            client = redis.Redis(unix_socket_path=str(socket), password=password, retry=retry)
            settings = client.config_get("append*", "maxmemory*")
            assert (settings["appendonly"], settings["appendfsync"]) == ("yes", "always")
            assert settings["maxmemory-policy"] == "noeviction"
            with pytest.raises(redis.AuthenticationError):
                redis.Redis(unix_socket_path=str(socket)).ping()
            client.close()
        finally:
            process.terminate()
    assert list((tmp_path / "data").rglob("*.aof"))
    assert (tmp_path / "run" / "redis.conf").stat().st_mode & 0o077 == 0


def test_block_port_is_for_workers_and_redis_for_the_scheduler(render):
    """The NetworkPolicies let in nobody else."""
    policies = render(TINY).of("NetworkPolicy")

    def peers(policy: str, port: str) -> list[str]:
        return [
            peer.get("podSelector", {}).get("matchLabels", {}).get("app.kubernetes.io/component", "outside")
            for rule in policies[policy]["spec"]["ingress"]
            if [one["port"] for one in rule["ports"]] == [port]
            for peer in rule["from"]
        ]

    assert peers("seg-scheduler", "block") == ["worker"]
    assert peers("seg-scheduler", "http") == ["test", "outside"]
    assert peers("seg-redis", "redis") == ["scheduler"]
    assert peers("seg-worker", "http") == ["outside"]
    assert all("Egress" not in one["spec"]["policyTypes"] for one in policies.values())


def test_selectors_choose_only_their_own(render):
    """Selectors hold nothing that changes with a version, and each Deployment's choose only its pods."""
    rendering = render(CHART / "ci" / "gpu-and-spot-values.yaml")
    seen = []
    for one in [*rendering.of("Deployment").values(), *rendering.of("StatefulSet").values()]:
        selector = one["spec"]["selector"]["matchLabels"]
        assert "helm.sh/chart" not in selector
        assert "app.kubernetes.io/version" not in selector
        assert selector.items() <= one["spec"]["template"]["metadata"]["labels"].items()
        seen.append(frozenset(selector.items()))
    assert not any(a <= b for a in seen for b in seen if a is not b)


def test_a_scheduler_that_is_alone_is_recreated(render):
    """One scheduler: Recreate. Two: rolling, with a budget, away from each other, each known by its own address."""
    alone = render(TINY)
    assert alone.one("Deployment", "seg-scheduler")["spec"]["strategy"]["type"] == "Recreate"
    assert not alone.of("PodDisruptionBudget")
    both = render(TINY, sets=("scheduler.replicas=2",))
    assert both.one("Deployment", "seg-scheduler")["spec"]["strategy"]["type"] == "RollingUpdate"
    assert both.of("PodDisruptionBudget")
    assert "podAntiAffinity" in both.pods()["Deployment/seg-scheduler"]["affinity"]
    assert "--advertise=$(POD_IP):8470" in both.container("Deployment", "seg-scheduler")["args"]


def test_probes_ask_what_they_should(render):
    """Liveness never asks Redis, recovery has time, and a worker has no readiness to lose."""
    rendering = render(TINY, sets=("scheduler.startupSeconds=601",))
    scheduler = rendering.container("Deployment", "seg-scheduler")
    assert scheduler["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert scheduler["readinessProbe"]["httpGet"]["path"] == "/readyz"
    startup = scheduler["startupProbe"]
    assert startup["failureThreshold"] * startup["periodSeconds"] >= 601
    assert "readinessProbe" not in rendering.container("Deployment", "seg-worker-default")


def test_workers_have_time_to_hand_back(render):
    """The drain ends 5 s before Kubernetes kills; a spot pool fits into a preemption's notice."""
    rendering = render(TINY, sets=("worker.gracePeriodSeconds=600", "pools.spot.spot=true"))
    assert rendering.pods()["Deployment/seg-worker-default"]["terminationGracePeriodSeconds"] == 600
    assert "--drain-s=595" in rendering.container("Deployment", "seg-worker-default")["args"]
    assert rendering.pods()["Deployment/seg-worker-spot"]["terminationGracePeriodSeconds"] == 25
    assert "--drain-s=20" in rendering.container("Deployment", "seg-worker-spot")["args"]
    assert (
        "--drain-s=0"
        in render(TINY, sets=("worker.gracePeriodSeconds=2",)).container("Deployment", "seg-worker-default")["args"]
    )


def test_a_gpu_pool_asks_for_gpus_and_bears_their_taint(render):
    """`gpus: 2` is a limit and a toleration; memory limits stay."""
    rendering = render(TINY, sets=("pools.gpu.gpus=2", "pools.gpu.slots=2"))
    container = rendering.container("Deployment", "seg-worker-gpu")
    assert container["resources"]["limits"] == {"memory": "4Gi", "nvidia.com/gpu": 2}
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in rendering.pods()[
        "Deployment/seg-worker-gpu"
    ]["tolerations"]
    assert "nvidia.com/gpu" not in rendering.container("Deployment", "seg-worker-default")["resources"]["limits"]


def test_a_pool_adds_to_the_environment_of_all(render):
    """Lists of the pool are put behind those of `worker`, other values replace."""
    rendering = render(CHART / "ci" / "gpu-and-spot-values.yaml")
    names = [one["name"] for one in rendering.container("Deployment", "membranes-worker-gpu")["env"]]
    assert names[-2:] == ["OMP_NUM_THREADS", "CUDA_MODULE_LOADING"]
    spot = [one["name"] for one in rendering.container("Deployment", "membranes-worker-spot")["env"]]
    assert "CUDA_MODULE_LOADING" not in spot


def test_code_is_on_the_module_path_as_it_was(render, helm, run_tool, tmp_path):
    """`--set-file code.NAME=FILE` gives every worker NAME.py, byte for byte, and a change restarts them."""
    source = 'def copy(block):\n    return "{{ braces }} # ü"\n'
    (tmp_path / "tiny.py").write_text(source)
    option = ("--set-file", f"code.tiny={tmp_path / 'tiny.py'}")
    first = render(TINY, options=option)
    assert first.one("ConfigMap", "seg-code")["data"] == {"tiny.py": source}
    worker = first.container("Deployment", "seg-worker-default")
    assert "--module-path=/etc/blockyard/code" in worker["args"]
    assert {"name": "code", "mountPath": "/etc/blockyard/code", "readOnly": True} in worker["volumeMounts"]
    (tmp_path / "tiny.py").write_text(source + "#\n")
    second = render(TINY, options=option, again=True)
    checksums = [
        one.one("Deployment", "seg-worker-default")["spec"]["template"]["metadata"]["annotations"]["checksum/code"]
        for one in (first, second)
    ]
    assert checksums[0] != checksums[1]


def test_relative_paths_mean_the_data_volume(render):
    """User code starts in the data volume, as a local run starts in the pipeline's folder."""
    with_data = render(TINY, sets=("data.existingClaim=scratch",))
    assert with_data.container("Deployment", "seg-worker-default")["workingDir"] == "/data"
    assert "workingDir" not in render(TINY).container("Deployment", "seg-worker-default")


def test_a_scheduler_that_ends_is_a_job_of_its_revision(render):
    """`run.onEnd: exit`: a Job; failed blocks and bad input end it, crashes are tried again."""
    rendering = render(TINY, sets=("run.onEnd=exit",))
    assert "seg-scheduler" not in rendering.of("Deployment")
    job = rendering.one("Job", "seg-scheduler-1")["spec"]
    assert "--exit-when-done" in job["template"]["spec"]["containers"][0]["args"]
    assert job["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"] == [1, 2]


def test_an_external_redis_is_reached_without_a_password_in_the_open(render):
    """The URL is an argument, the password a file, the authority's certificate too."""
    rendering = render(CHART / "ci" / "job-with-external-redis-values.yaml")
    scheduler = rendering.container("Job", "seg-scheduler-1")
    assert (
        "--redis-url=rediss://run@redis.example.org:6380/2?ssl_ca_certs=/run/secrets/redis-ca/ca.crt"
        in scheduler["args"]
    )
    assert "--redis-password-file=/run/secrets/redis/password" in scheduler["args"]
    assert not rendering.of("StatefulSet")


def test_given_secrets_are_used_and_not_made(render):
    """With existingSecret the chart makes none, and mounts the key that was named."""
    rendering = render(CHART / "ci" / "standbys-values.yaml")
    assert not rendering.of("Secret")
    volumes = {one["name"]: one for one in rendering.pods()["Deployment/seg-scheduler"]["volumes"]}
    assert volumes["token"]["secret"] == {"secretName": "shared-token", "items": [{"key": "value", "path": "token"}]}
    assert volumes["redis-password"]["secret"] == {
        "secretName": "redis-login",
        "items": [{"key": "password", "path": "password"}],
    }


def test_workers_check_the_scheduler_by_tls_and_never_see_its_key(render):
    """Of one Secret the scheduler gets certificate and key, workers the authority and the name to look for."""
    rendering = render(TINY, sets=("tls.existingSecret=em-tls",))
    scheduler, worker = (rendering.pods()[f"Deployment/seg-{name}"] for name in ("scheduler", "worker-default"))
    mounted = [
        {item["path"] for volume in pod["volumes"] if volume["name"] == "tls" for item in volume["secret"]["items"]}
        for pod in (scheduler, worker)
    ]
    assert mounted == [{"tls.crt", "tls.key", "ca.crt"}, {"ca.crt"}]
    flags = worker["containers"][0]["args"]
    assert {"--tls-ca=/run/secrets/tls/ca.crt", "--tls-name=seg-scheduler"} <= set(flags)
    assert "scheme" not in scheduler["containers"][0]["livenessProbe"]["httpGet"]


def test_everything_that_asks_the_scheduler_does_so_by_https(render):
    """Probes, `helm test`, Prometheus' annotations and the notes."""
    sets = ("tls.existingSecret=em-tls", "tls.http=true", "monitoring.annotations=true")
    rendering = render(TINY, sets=sets)
    scheduler = rendering.pods()["Deployment/seg-scheduler"]
    probes = [scheduler["containers"][0][f"{kind}Probe"]["httpGet"] for kind in ("startup", "readiness", "liveness")]
    assert {probe["scheme"] for probe in probes} == {"HTTPS"}
    test = rendering.pods()["Pod/seg-test"]
    assert test["containers"][0]["command"][-1] == "https://seg-scheduler:8471"
    template = rendering.one("Deployment", "seg-scheduler")["spec"]["template"]
    assert template["metadata"]["annotations"]["prometheus.io/scheme"] == "https"
    assert "blockyard status https://seg-scheduler:8471" in render.notes(TINY, sets=sets)
    assert scheduler["hostAliases"] == [{"ip": "127.0.0.1", "hostnames": ["seg-scheduler"]}]


def test_a_changed_pipeline_restarts_the_scheduler_and_no_worker(render):
    """Workers hear of the pipeline from the scheduler; only the scheduler's pod changes."""
    first, second = render(TINY), render(TINY, sets=("tasks[0].max_retries=7",))
    for name, same in (("seg-scheduler", False), ("seg-worker-default", True)):
        assert (first.one("Deployment", name) == second.one("Deployment", name)) is same


def test_unchanged_values_change_no_pod(render):
    """Rendering again (with other random secrets) gives the same pods, so an upgrade restarts nothing."""
    first, second = render(TINY), render(TINY, again=True)
    assert first.pods() == second.pods()
    assert first.without_chance() == second.without_chance()


def test_every_object_says_whose_it_is(render):
    """The recommended labels and the user's own are on every object."""
    rendering = render(TINY, sets=("commonLabels.team=vision",))
    for one in rendering.objects:
        labels = one["metadata"]["labels"]
        assert labels["app.kubernetes.io/instance"] == "seg", one
        assert labels["team"] == "vision"


def test_an_old_kubernetes_is_refused(render):
    """helm says which version is needed."""
    with pytest.raises(Refused, match="requires kubeVersion"):
        render(TINY, options=("--kube-version", "1.28.0"))


def test_the_notes_say_what_to_do_next(render):
    """Port-forward, status, scale, dashboard, as lines to copy."""
    notes = render.notes(TINY)
    assert "kubectl --namespace lab port-forward service/seg-scheduler 8471:8471" in notes
    assert "kubectl --namespace lab exec deployment/seg-scheduler -- blockyard status localhost:8471" in notes
    assert "kubectl --namespace lab scale deployment/seg-worker-default --replicas=20" in notes
    assert "monitoring.dashboard.enabled=true" in notes
    job = render.notes(CHART / "ci" / "job-with-external-redis-values.yaml")
    assert "wait --for='jsonpath={.status.conditions}' --timeout=-1s job/seg-scheduler-1" in job
    assert "seg-workers-outside" in job
    assert "WARNING: redis.persistence is off" in render.notes(CHART / "ci" / "code-and-local-disk-values.yaml")
