"""A Kubernetes API server as far as scaling needs it, over HTTP, as Kubernetes documents it; with faults to order.

Deployments with their `scale`, pods with label selectors, SelfSubjectAccessReviews, JSON patches (and
no other ones), resource versions, Status objects for errors, bearer tokens. `fail` makes the next requests go wrong.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re

from tornado.httpserver import HTTPServer
from tornado.web import Application, RequestHandler

NAMESPACE, RELEASE = "lab", "em"


_uids = itertools.count(1)


def deployment(name, replicas=1):
    """One that was just made."""
    return {
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "namespace": NAMESPACE, "resourceVersion": "1", "uid": f"uid-{next(_uids)}"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {}}, "template": {"spec": {"containers": []}}},
        "status": {"readyReplicas": replicas},
    }  # fmt: skip


def warning(name, reason, message, at):
    """An Event about a pod; `at` is its minute."""
    return {
        "metadata": {"name": f"{name}.{at}", "namespace": NAMESPACE}, "type": "Warning", "reason": reason,
        "message": message, "lastTimestamp": f"2026-01-01T00:{at:02}:00Z",
        "involvedObject": {"kind": "Pod", "name": name},
    }  # fmt: skip


def pod(name, pool="default", phase="Running", **status):
    labels = {
        "app.kubernetes.io/instance": RELEASE, "app.kubernetes.io/component": "worker", "blockyard/pool": pool,
    }  # fmt: skip
    return {
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels, "resourceVersion": "1"},
        "spec": {"containers": [{"name": "worker"}]},
        "status": {"phase": phase, **status},
    }


class Api:
    """The server: `async with Api() as api`."""

    def __init__(self):
        self.deployments, self.pods = {}, {}
        self.events, self.told = [], []
        """Events about pods, and what we were told: (object, reason, message)."""
        self.logs = {}
        """What a pod's container wrote, by pod; the one before it, by pod and "before"."""
        self.token = "good"
        self.denied = set()
        """(verb, resource) that the Role lacks."""
        self.meanwhile = None
        """Called once, just before a Scale is patched."""
        self.asked = []
        """(method, path) of every request."""
        self._faults = []
        self.held = asyncio.Event()
        self.held.set()

    async def __aenter__(self):
        self._server = HTTPServer(Application([(".*", _Handler, {"api": self})]))
        self._server.listen(0, "127.0.0.1")
        (socket,) = self._server._sockets.values()
        self.url = f"http://127.0.0.1:{socket.getsockname()[1]}"
        return self

    async def __aexit__(self, *_):
        self.held.set()
        self._server.stop()
        await self._server.close_all_connections()

    def configuration(self):
        """What the official client is configured with, read anew each time."""
        from kubernetes.client import Configuration

        configuration = Configuration(host=self.url)
        configuration.retries = False
        configuration.api_key = {"BearerToken": f"Bearer {self.token}"}
        return configuration

    def fail(self, code, method="PATCH", times=1, message="a fault", **headers):
        """Answer the next requests of a method with an error."""
        self._faults += [(code, method, message, headers)] * times

    def fault(self, method):
        for row in self._faults:
            if row[1] == method:
                self._faults.remove(row)
                return row
        return None

    def replicas(self, name):
        return self.deployments[name]["spec"]["replicas"]

    def scale(self, name, replicas):
        """What somebody does by `kubectl scale`."""
        self.deployments[name]["spec"]["replicas"] = replicas

    def scaled(self, name, patch):
        """Patch a Scale; like Kubernetes' own it has no `replicas` where they are 0."""
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        found, n = self.deployments[name], self.replicas(name)
        scale = {"metadata": found["metadata"], "spec": {"replicas": n} if n else {}}
        if error := self.patched(scale, patch):
            return error
        found["spec"]["replicas"] = scale["spec"]["replicas"]
        return None

    def patched(self, target, patch):
        """Apply a JSON patch; give why it does not apply, if so."""
        for step in patch:
            *parents, last = [part.replace("~1", "/") for part in step["path"].split("/")[1:]]
            place = target
            for part in parents:
                place = place[part]
            assert step["op"] in ("add", "replace", "test")
            if step["op"] != "add" and last not in place:
                return f"{step['op']} operation does not apply: doc is missing key: {step['path']}"
            if step["op"] == "test" and place[last] != step["value"]:
                return f"testing value {step['path']} failed"
            place[last] = step["value"]
        target["metadata"]["resourceVersion"] = str(int(target["metadata"]["resourceVersion"]) + 1)
        return None


class _Handler(RequestHandler):
    def initialize(self, api):
        self.api = api

    async def prepare(self):
        api, method = self.api, self.request.method
        api.asked.append((method, self.request.path))
        await api.held.wait()
        if fault := api.fault(method):
            code, _, message, headers = fault
            for name, value in headers.items():
                self.set_header(name.replace("_", "-"), value)
            self.refuse(code, message)
        elif self.request.headers.get("Authorization") != "Bearer good":
            self.refuse(401, "Unauthorized")

    def refuse(self, code, message):
        self.set_status(code)
        self.finish({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code})

    def forbidden(self, verb, resource):
        if (verb, resource) in self.api.denied:
            self.refuse(403, f'User "scheduler" cannot {verb} resource "{resource}" in the namespace "{NAMESPACE}"')
            return True
        return False

    def get(self):
        apps, core = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/", f"/api/v1/namespaces/{NAMESPACE}/pods"
        path = self.request.path
        if path.startswith(apps):
            self.give(self.api.deployments, path.removeprefix(apps), "get", "deployments")
        elif path.startswith(core + "/") and path.endswith("/log"):
            self.log(path.removeprefix(core + "/").removesuffix("/log"))
        elif path == core.replace("/pods", "/events"):
            assert self.get_query_argument("fieldSelector") == "type=Warning,involvedObject.kind=Pod"
            if not self.forbidden("list", "events"):
                self.finish({"kind": "EventList", "apiVersion": "v1", "metadata": {}, "items": self.api.events})
        elif path == core and not self.forbidden("list", "pods"):
            wanted = dict(part.split("=") for part in self.get_query_argument("labelSelector").split(","))
            found = [pod for pod in self.api.pods.values() if wanted.items() <= pod["metadata"]["labels"].items()]
            self.finish({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": found})

    def log(self, name):
        if self.forbidden("get", "pods/log"):
            return
        previous = self.get_query_argument("previous", "false") == "true"
        assert self.get_query_argument("container") == "worker"
        key = (name, "before") if previous else name
        if key not in self.api.logs:
            self.refuse(404, f'pods "{name}" not found')
            return
        self.set_header("Content-Type", "text/plain")
        most = int(self.get_query_argument("limitBytes"))
        self.finish(self.api.logs[key].encode()[:most])

    def give(self, kind, name, verb, resource):
        if self.forbidden(verb, resource):
            return
        if name not in kind:
            self.refuse(404, f'{resource} "{name}" not found')
            return
        self.finish(kind[name])

    def patch(self):
        kind = self.request.headers["Content-Type"]
        patch = json.loads(self.request.body)
        if kind != "application/json-patch+json" or not isinstance(patch, list):
            self.refuse(400, f"cannot take {type(patch).__name__} as {kind}")
            return
        if found := re.fullmatch(r"/apis/apps/v1/namespaces/\w+/deployments/([\w.-]+)/scale", self.request.path):
            name = found[1]
            if self.forbidden("patch", "deployments/scale"):
                return
            if name not in self.api.deployments:
                self.refuse(404, f'deployments "{name}" not found')
                return
            if error := self.api.scaled(name, patch):
                self.refuse(422, error)
                return
            spec = {"replicas": self.api.replicas(name)}
            metadata = {"name": name, "namespace": NAMESPACE}
            self.finish({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec})
            return
        found = re.fullmatch(r"/api/v1/namespaces/\w+/pods/([\w.-]+)", self.request.path)
        if found and not self.forbidden("patch", "pods"):
            self.api.patched(self.api.pods[found[1]], patch)
            self.finish(self.api.pods[found[1]])

    def post(self):
        body = json.loads(self.request.body)
        if self.request.path.endswith("/events"):
            if not self.forbidden("create", "events"):
                assert body["involvedObject"]["namespace"] == body["metadata"]["namespace"] == NAMESPACE
                self.api.told.append((body["involvedObject"]["name"], body["reason"], body["message"]))
                self.set_status(201)
                self.finish(body)
            return
        asked = body["spec"]["resourceAttributes"]
        resource = "/".join(filter(None, (asked["resource"], asked.get("subresource"))))
        allowed = (asked["verb"], resource) not in self.api.denied
        self.set_status(201)
        self.finish(body | {"status": {"allowed": allowed}})
