"""The chart grants what the operator asks for: nothing is missing, and nothing is left over.

An operator does everything it can do, once. On our API server, what it asked for is held against
what the chart grants; on Kubernetes' own, with the chart's ServiceAccount and roles, every request
must be allowed.
"""

import asyncio
import base64
import contextlib
import copy
import re
import time
from fnmatch import fnmatchcase

import pytest

from stageline_api.crd import crd
from stageline_local.apiserver import served
from stageline_local.client import ApiError, Client
from stageline_operator import secrets
from stageline_operator.kinds import CHILDREN, CONTROLLER_REVISION, PIPELINE_DEPLOYMENT, POD, SECRET
from stageline_operator.labels import OWNER
from support.chart import NAMESPACE, named, rendered
from support.fakenodes import FakeNodes
from support.faultyproxy import FaultyProxy
from support.kube import Server
from support.operator import operating, serving_alone
from support.podstatus import waiting

_PATH = re.compile(
    r"/(?:api|apis/(?P<group>[^/]+))/[^/]+(?:/namespaces/(?P<namespace>[^/]+))?"
    r"/(?P<plural>[a-z]+)(?:/(?P<name>[^/]+)(?:/(?P<sub>[a-z]+))?)?"
)
_VERBS = {"POST": "create", "PATCH": "patch", "DELETE": "delete"}
_OWN = "models"
MODES = {"cluster": {}, "namespaces": {"namespaces": [_OWN]}}
NOT_SEEN = {("Role", "stageline.dev", "pipelinedeployments/finalizers", "update")}
"""Asked of the operator by an admission plugin, for the owner references that block."""
modes = pytest.mark.parametrize("values", MODES.values(), ids=MODES)


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """A pod is stuck after a moment."""
    monkeypatch.setattr(secrets, "STUCK_SECONDS", 0.2)


@modes
async def test_the_operator_has_every_right_it_uses_and_no_other(values):
    granted = granted_rights(values)
    with served() as api:
        seen = await everything_done(Server(api.url), Server(api.url), values)
    used = used_rights(seen, values)
    assert used - granted == set(), "the operator uses what the chart does not grant"
    assert granted - used == as_granted(NOT_SEEN, values), "the chart grants what is never used"


@modes
async def test_a_real_api_server_allows_everything_it_does(real, values):
    admin = real.server
    async with Client(admin.url, token=admin.token, ca_file=admin.ca_file) as client:
        await delete_grants(client)
        await grant(client, values)
        mine = Server(admin.url, await token(client), admin.ca_file)
        await allowed(mine, values)
    seen = await everything_done(admin, mine, values)
    refused = {(one.method, one.path) for one in seen if one.status == 403}
    assert refused == set()


# What it does


async def everything_done(admin, mine, values):
    """The requests of an operator at `mine` that did all it can do; `admin` is the rest's way."""
    async with Client(admin.url, token=admin.token, ca_file=admin.ca_file or None) as client:
        await install(client)
        with FaultyProxy(mine) as proxy, FakeNodes(
            admin.url, token=admin.token, ca_file=admin.ca_file
        ) as nodes:  # fmt: skip
            life = Life(client, proxy, nodes)
            try:
                mine = (Server(proxy.url), values.get("namespaces", ()))
                async with serving_alone(*mine), operating(*mine):
                    await life.begins()
                    await life.goes_on()
                    await life.renews()
                    await life.waits()
                    await life.meets_others()
                return list(proxy.seen)
            finally:
                await life.ends()


class Life:
    """One resource called llama, and others whose names are taken."""

    def __init__(self, client, proxy, nodes):
        self.client, self.proxy, self.nodes = client, proxy, nodes

    async def begins(self):
        await self.create("llama")
        await self.ready("llama")
        more = {"replicas": 2, "router": {"replicas": 2}}
        await self.makes_it("PATCH", f"{POD.path(_OWN)}/llama-router-*", self.change(more))
        await self.ready("llama")
        gpu = {"limits": {"nvidia.com/gpu": 1}}
        await self.makes_it("GET", "/api/v1/nodes", self.create("on-gpus", resources=gpu))

    async def goes_on(self):
        """Of each kind one is deleted, one changed, and one is too many."""
        await self.makes_it("DELETE", f"{POD.path(_OWN)}/llama-*", self.change({"replicas": 1}))
        for kind in CHILDREN:
            if kind != POD:
                await self.is_disturbed(kind)

    async def is_disturbed(self, kind):
        (name, obj), *_ = sorted((await self.children(kind)).items())
        path, client = kind.path(_OWN, name), self.client
        made = ("PATCH", path) if kind == CONTROLLER_REVISION else ("POST", kind.path(_OWN))
        await self.makes_it(*made, client.delete(path), 201)
        changed = {"metadata": {"labels": {"app.kubernetes.io/part-of": "nothing"}}}
        await self.makes_it("PATCH", path, client.merge_patch(path, changed), 200)
        stray = bare(obj, f"{name[:50]}-stray", owned=True)
        path = kind.path(_OWN, stray["metadata"]["name"])
        await self.makes_it("DELETE", path, client.create(kind.path(_OWN), stray))

    async def renews(self):
        """A certificate that somebody spoilt, once a pod waits for it."""
        name = "llama-stage-tls"
        nonsense = {"data": {"tls.key": base64.b64encode(b"nonsense").decode()}}
        await self.client.merge_patch(SECRET.path(_OWN, name), nonsense)
        (pod,) = (name for name in await self.children(POD) if name.endswith("-0-1"))
        self.nodes.fate(pod, waiting("ContainerCreating"))
        gone = self.client.delete(POD.path(_OWN, pod))
        await self.makes_it("PATCH", SECRET.path(_OWN, name), gone, 200)
        self.nodes.mend(pod)
        await self.ready("llama")

    async def waits(self):
        """For a Secret that a volume is made of."""
        mount = {"name": "more", "mountPath": "/more"}
        template = {
            "volumes": [{"name": "more", "secret": {"secretName": "hub"}}],
            "containers": [{"name": "worker", "volumeMounts": [mount]}],
        }
        self.nodes.fate("patient-*-0-1", waiting("ContainerCreating"))
        created = self.create("patient", podTemplate={"spec": template})
        await self.makes_it("GET", SECRET.path(_OWN, "hub"), created)

    async def meets_others(self):
        """Of each kind, one name is somebody else's."""
        for kind in CHILDREN:
            (name, obj), *_ = sorted((await self.children(kind)).items())
            owner = f"no-{kind.plural}"
            taken = name.replace("llama", owner, 1)
            await self.client.create(kind.path(_OWN), bare(obj, taken))
            await self.makes_it("GET", kind.path(_OWN, taken), self.create(owner))

    async def ends(self):
        for kind in (PIPELINE_DEPLOYMENT, *CHILDREN, SECRET):
            for obj in await self.client.list(kind.path(_OWN)):
                grace = 0 if kind == POD else None
                with contextlib.suppress(ApiError):
                    path = kind.path(_OWN, obj["metadata"]["name"])
                    await self.client.delete(path, grace_seconds=grace)

    async def create(self, name, **more):
        spec = {"model": {"uri": "file:///models/x"}, "pipeline": {"stages": 2}, **more}
        resource = {
            "apiVersion": PIPELINE_DEPLOYMENT.api_version, "kind": PIPELINE_DEPLOYMENT.kind,
            "metadata": {"name": name}, "spec": spec,
        }  # fmt: skip
        await self.client.create(PIPELINE_DEPLOYMENT.path(_OWN), resource)

    async def children(self, kind):
        found = await self.client.list(kind.path(_OWN), labels=f"{OWNER}=llama")
        return {
            obj["metadata"]["name"]: obj for obj in found
            if obj["metadata"]["ownerReferences"][0]["kind"] == PIPELINE_DEPLOYMENT.kind
        }  # fmt: skip

    async def ready(self, name):
        async def is_so():
            resource = await self.client.get(PIPELINE_DEPLOYMENT.path(_OWN, name))
            status = resource.get("status") or {}
            return (
                status.get("observedGeneration") == resource["metadata"]["generation"]
                and status.get("readyReplicas") == resource["spec"]["replicas"]
            )

        await eventually(is_so, f"{name} is ready")

    def change(self, spec):
        path = PIPELINE_DEPLOYMENT.path(_OWN, "llama")
        return self.client.merge_patch(path, {"spec": spec})

    async def makes_it(self, method, path, happening, status=None):
        """What happens makes the operator ask for this."""
        before = len(self.proxy.seen)
        await happening

        async def is_so():
            return any(
                one.method == method and fnmatchcase(one.path, path)
                and status in (None, one.status) for one in self.proxy.seen[before:]
            )  # fmt: skip

        await eventually(is_so, f"the operator asks {method} {path}")


def bare(obj, name, *, owned=False):
    """Another object like `obj`, as a user would make it."""
    made = copy.deepcopy({key: value for key, value in obj.items() if key != "status"})
    old = made["metadata"]
    made["metadata"] = {"name": name}
    if owned:
        kept = ("labels", "ownerReferences")
        made["metadata"] |= {key: old[key] for key in kept}
    for field in ("clusterIP", "clusterIPs", "nodeName"):
        if made.get("spec", {}).get(field) != "None" and field in made.get("spec", {}):
            del made["spec"][field]
    return made


async def eventually(condition, what, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, f"{what}: not so after {seconds} s"
        await asyncio.sleep(0.02)


# What it may do


def used_rights(seen, values):
    """(Role or ClusterRole, group, resource, verb) of each request."""
    used = set()
    for one in seen:
        found = _PATH.fullmatch(one.path)
        if found is None:  # discovery, which everybody may
            continue
        role = "Role" if found["namespace"] else "ClusterRole"
        resource = found["plural"] + (f"/{found['sub']}" if found["sub"] else "")
        for verb in verbs(one, bool(found["name"])):
            used.add((role, found["group"] or "", resource, verb))
    return as_granted(used, values)


def verbs(one, named):
    """As the API server authorizes it: what apply makes is created as well."""
    if one.method == "GET":
        return ["get"] if named else ["watch" if "watch=true" in one.query else "list"]
    return [_VERBS[one.method]] + (
        ["create"] if one.method == "PATCH" and one.status == 201 else []
    )


def as_granted(rights, values):
    """Where the operator serves all namespaces, the ClusterRole has it all."""
    if values.get("namespaces"):
        return rights
    return {("ClusterRole", *right) for _, *right in rights}


def granted_rights(values):
    roles = [named("ClusterRole", "stageline", values)]
    roles += [named("Role", "stageline", values)] if values.get("namespaces") else []
    return {
        (role["kind"], group, resource, verb)
        for role in roles for rule in role["rules"]
        for group in rule["apiGroups"] for resource in rule["resources"] for verb in rule["verbs"]
    }  # fmt: skip


# On Kubernetes' own


async def install(client):
    """The CRD and the namespaces, where they are not there yet."""
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    name = crd()["metadata"]["name"]
    await make(client, path, crd())
    for namespace in (_OWN, NAMESPACE):
        obj = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
        await make(client, "/api/v1/namespaces", obj)

    async def is_served():
        told = (await client.get(f"{path}/{name}")).get("status") or {}
        return any(c["type"] == "Established" for c in told.get("conditions") or ())

    await eventually(is_served, "the CRD is served")


async def make(client, path, obj):
    try:
        await client.create(path, obj)
    except ApiError as error:
        if error.reason != "AlreadyExists":
            raise


_RBAC = {"ClusterRole": "clusterroles", "ClusterRoleBinding": "clusterrolebindings",
         "Role": "roles", "RoleBinding": "rolebindings"}  # fmt: skip


def rbac_folder(obj):
    place = f"/namespaces/{obj['metadata']['namespace']}" if "namespace" in obj["metadata"] else ""
    return f"/apis/rbac.authorization.k8s.io/v1{place}/{_RBAC[obj['kind']]}"


async def grant(client, values):
    """The ServiceAccount and the roles of the chart."""
    await install(client)
    for obj in rendered(values):
        if obj["kind"] == "ServiceAccount":
            await make(client, f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts", obj)
        elif obj["kind"] in _RBAC:
            await client.create(rbac_folder(obj), obj)


async def delete_grants(client):
    for values in MODES.values():
        for obj in rendered(values):
            if obj["kind"] in _RBAC:
                with contextlib.suppress(ApiError):
                    await client.delete(f"{rbac_folder(obj)}/{obj['metadata']['name']}")


async def token(client):
    """Of the chart's ServiceAccount, as a kubelet mounts it."""
    path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/stageline/token"
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    return (await client.create(path, asked))["status"]["token"]


async def allowed(mine, values):
    """The API server has heard of the roles."""
    everywhere = f"/apis/{PIPELINE_DEPLOYMENT.api_version}/{PIPELINE_DEPLOYMENT.plural}"
    places = [
        PIPELINE_DEPLOYMENT.path(_OWN) if values else everywhere,
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
    ]
    async with Client(mine.url, token=mine.token, ca_file=mine.ca_file) as client:

        async def is_so():
            with contextlib.suppress(ApiError):
                for place in places:
                    await client.list(place)
                return True
            return False

        await eventually(is_so, "the roles are in force")
