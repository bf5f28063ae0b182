"""What is rendered is taken by API servers as it is, under the restricted level, and stays so."""

import pytest

from stageline_api.crd import crd
from stageline_operator.difference import is_as_wished, stamped
from stageline_operator.kinds import DEPLOYMENT, POD, kind_of
from support.apiserver import APPLY, ask
from support.kube import one_of
from support.rendered import rendered

SPECS = {
    "the least": "{pipeline: {stages: 2}}",
    "much": """
        pipeline: {stages: 2}
        nodeSelector: {pool: gpu}
        tolerations: [{key: gpu, operator: Exists}, {key: a, value: b, effect: NoExecute,
                                                     tolerationSeconds: 5}]
        topologySpreadConstraints: [{topologyKey: zone, whenUnsatisfiable: DoNotSchedule}]
        resources: {requests: {cpu: 1000m, memory: 1024Mi}, limits: {nvidia.com/gpu: 1}}
        podTemplate:
          metadata: {labels: {team: a}, annotations: {example.com/note: "1"}}
          spec: {dnsPolicy: Default, containers: [{name: worker, env: [{name: A, value: b}]}]}
        router: {replicas: 2, resources: {requests: {cpu: 500m}}}
    """,
}


@pytest.fixture(scope="module", params=["double", "real"])
def server(request):
    with one_of(request) as server:
        yield server


@pytest.fixture(scope="module")
def namespaced(server):
    """The server, with namespaces in which only restricted pods may be."""
    definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    _ask(server, "POST", definitions, crd())
    for place in range(len(SPECS)):
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        namespace = {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": f"models-{place}", "labels": labels},
        }
        assert _ask(server, "POST", "/api/v1/namespaces", namespace).code in (201, 409)
    yield server
    for place in range(len(SPECS)):
        for kind in (DEPLOYMENT, POD):
            folder = kind.path(f"models-{place}")
            for obj in _ask(server, "GET", folder).body["items"]:
                path = f"{folder}/{obj['metadata']['name']}?gracePeriodSeconds=0"
                _ask(server, "DELETE", path)


def _ask(server, method, path, body=None, content_type="application/json"):
    return ask(
        server.url, method, path, body, content_type, token=server.token, ca_file=server.ca_file
    )


@pytest.mark.parametrize("what", SPECS)
@pytest.mark.parametrize("uri", ["pvc://models/llama", "hf://a/b"])
def test_every_child_is_taken_and_is_then_as_it_was_wished(namespaced, what, uri):
    namespace = f"models-{list(SPECS).index(what)}"
    made = rendered(SPECS[what], uri=uri, namespace=namespace, name=f"llama-{uri[:2]}")
    for child in made.everything():
        taken = _create if child["kind"] == "Pod" else _apply_twice
        taken(namespaced, namespace, child)


def _create(server, namespace, pod):
    """As the operator makes pods: once, and they are never changed."""
    path = f"{kind_of(pod).path(namespace)}?fieldValidation=Strict"
    answer = _ask(server, "POST", path, pod)
    assert answer.code == 201, answer.message
    assert answer.warnings == (), f"{pod['metadata']['name']} is warned of"


def _apply_twice(server, namespace, child):
    """As it applies all else: a second time it would see that it need not."""
    child = stamped(child)
    path = kind_of(child).path(namespace, child["metadata"]["name"])
    how = "?fieldManager=stageline&fieldValidation=Strict"
    answer = _ask(server, "PATCH", path + how, child, APPLY)
    assert answer.code == 201, f"{child['kind']}: {answer.message}"
    assert answer.warnings == (), f"{child['kind']} is warned of"
    live = _ask(server, "GET", path).body
    assert is_as_wished(live, child), f"{child['kind']} would be applied again and again"
    again = _ask(server, "PATCH", path + how, child, APPLY)
    assert again.code == 200, f"{child['kind']} again: {again.message}"
    now = again.body["metadata"]["resourceVersion"]
    assert now == live["metadata"]["resourceVersion"], f"{child['kind']}: the second one changes it"
