"""The CRD's rules: of one mind with the models, on our API server and on a real one."""

import time
import urllib.parse

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from stageline_api.crd import crd, schema
from stageline_api.manifest import ManifestError, read_manifest
from stageline_api.quantity import DURATION_PATTERN, QUANTITY_PATTERN
from stageline_api.rules import URI, matches, number_or_matches
from stageline_api.status import UNSEEN
from stageline_local.apiserver.cel.evaluation import evaluate
from stageline_local.apiserver.cel.syntax import parse
from support.apiserver import MERGE, PIPELINES, ask
from support.kube import one_of
from support.wrong import manifest
from support.wrong_manifests import CHANGES, WRONG

STRICT = "?fieldValidation=Strict"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


class Api:
    """The resource's place on one API server."""

    def __init__(self, server):
        self.server = server

    def __call__(self, method, path, body=None, content_type="application/json"):
        server = self.server
        return ask(
            server.url, method, path, body, content_type,
            token=server.token, ca_file=server.ca_file,
        )  # fmt: skip


@pytest.fixture(scope="module", params=["double", "real"])
def api(request):
    with one_of(request) as server:
        yield Api(server)


@pytest.fixture(scope="module")
def installed(api):
    """The API server with the CRD, which it has accepted."""
    answer = api("POST", DEFINITIONS, crd())
    assert answer.code == 201 or answer.reason == "AlreadyExists", answer.message
    wait_until_served(api)
    return api


def wait_until_served(api):
    deadline = time.monotonic() + 10
    while api("GET", PIPELINES).code != 200:
        assert time.monotonic() < deadline, "the CRD is accepted but its resource is not served"
        time.sleep(0.02)


@pytest.fixture
def no_leftovers(installed):
    yield
    for item in installed("GET", PIPELINES).body["items"]:
        name = urllib.parse.quote(item["metadata"]["name"])
        installed("DELETE", f"{PIPELINES}/{name}")


@pytest.mark.usefixtures("no_leftovers")
@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.what)
def test_the_api_server_refuses_what_the_models_refuse(installed, wrong):
    answer = installed("POST", PIPELINES + STRICT, manifest(wrong.change))
    assert (answer.code >= 400) == wrong.by_server, answer.message
    if wrong.by_server:
        assert wrong.field in answer.message
        assert answer.code < 500, "a user's mistake is no error of the server"
    assert "compile" not in answer.message
    assert "no such overload" not in answer.message


@pytest.mark.usefixtures("no_leftovers")
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.what)
def test_the_api_server_refuses_a_change_that_may_never_be(installed, change):
    assert installed("POST", PIPELINES, manifest(change.before)).code == 201
    path = f"{PIPELINES}/llama"
    answer = installed("PATCH", path, yaml.safe_load(change.after), MERGE)
    assert answer.code == 422
    assert change.words in answer.message


@pytest.mark.usefixtures("no_leftovers")
def test_a_revision_a_claim_and_all_else_may_change(installed):
    assert installed("POST", PIPELINES, manifest()).code == 201
    for change in [
        "spec: {model: {uri: 'hf://meta-llama/Llama-3.1-8B@v2'}}",
        "spec: {model: {uri: 'hf://meta-llama/Llama-3.1-8B'}}",
        "spec: {model: {uri: 'pvc://models/llama'}}",
        "spec: {pipeline: {stages: 2}, replicas: 0, router: {port: 9000}}",
    ]:
        answer = installed("PATCH", f"{PIPELINES}/llama", yaml.safe_load(change), MERGE)
        assert answer.code == 200, f"{change}: {answer.message}"


@pytest.mark.usefixtures("no_leftovers")
def test_the_api_server_fills_in_the_defaults(installed):
    made = installed("POST", PIPELINES, manifest()).body
    again = read_manifest(yaml.safe_dump({**made, "status": {}}), "from-the-server.yaml")
    assert again.spec == read_manifest(yaml.safe_dump(manifest()), "mine.yaml").spec
    assert made["spec"]["rollout"]["maxSurge"] == 1
    assert made["spec"]["router"]["port"] == 8001


@pytest.mark.usefixtures("no_leftovers")
def test_a_new_resource_is_not_ready_before_an_operator_has_seen_it(installed):
    """Helm and Flux take what has no Ready condition for done."""
    name = installed("POST", PIPELINES, manifest()).body["metadata"]["name"]
    assert installed("GET", f"{PIPELINES}/{name}").body["status"] == UNSEEN


@pytest.mark.usefixtures("no_leftovers")
def test_a_pod_template_is_kept_as_it_was_written(installed):
    template = {"spec": {"volumes": [{"name": "x", "$patch": "delete"}], "priorityClassName": "p"}}
    answer = installed("POST", PIPELINES + STRICT, manifest(f"spec: {{podTemplate: {template}}}"))
    assert answer.code == 201, answer.message
    assert answer.body["spec"]["podTemplate"]["spec"] == template["spec"]


def holds(rules, value):
    names = {"self": value}
    return all(
        evaluate(parse(rule["rule"]), names) for rule in rules if "oldSelf" not in rule["rule"]
    )


def read_ok(spec):
    try:
        read_manifest(yaml.safe_dump({**manifest(), "spec": spec}), "m.yaml")
    except ManifestError:
        return False
    return True


@given(st.text(max_size=40), st.sampled_from(["hf", "pvc", "s3", "file", "http"]))
def test_rules_and_models_agree_on_addresses(rest, scheme):
    uri = f"{scheme}://{rest}"
    assert holds(URI, uri) == read_ok({"model": {"uri": uri}})


@given(st.integers() | st.text("0123456789.-+kKMGTPEinueE", max_size=8))
def test_rules_and_models_agree_on_quantities(quantity):
    spec = {**manifest()["spec"], "resources": {"deviceMemory": quantity}}
    assert holds(number_or_matches(QUANTITY_PATTERN, ""), quantity) == read_ok(spec)


@given(st.text("0123456789.-smhu ", max_size=8))
def test_rules_and_models_agree_on_durations(duration):
    spec = {**manifest()["spec"], "batching": {"maxDelay": duration}}
    assert holds(matches(DURATION_PATTERN, ""), duration) == read_ok(spec)


stages = st.lists(st.integers(0, 5), min_size=1, max_size=4, unique=True)


@settings(max_examples=50)
@given(
    st.lists(stages, min_size=1, max_size=4),
    st.fixed_dictionaries({}, optional={"stages": st.integers(1, 6)}),
)
def test_rules_and_models_agree_on_overrides(overrides, pipeline):
    rules = schema()["properties"]["spec"]
    entries = [{"stages": each} for each in overrides]
    spec = {**manifest()["spec"], "pipeline": pipeline, "stageOverrides": entries}
    whole = {**spec, "rollout": {"maxSurge": 1, "maxUnavailable": 0}}
    by_rules = holds(rules["x-kubernetes-validations"], whole) and holds(
        rules["properties"]["stageOverrides"]["x-kubernetes-validations"], entries
    )
    assert by_rules == read_ok(spec)
