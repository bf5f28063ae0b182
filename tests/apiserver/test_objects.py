"""The life of objects: made, changed, deleted, as clients see it over HTTP."""

import pytest

from stageline_api.status import UNSEEN
from support.apiserver import (
    APPLY,
    CORE,
    DEPLOYMENTS,
    JSON_PATCH,
    MERGE,
    PIPELINES,
    ask,
    config_map,
    deployment,
    pipeline,
    pod,
)


@pytest.fixture
def call(server):
    return lambda *request, **how: ask(server.url, *request, **how)


@pytest.fixture
def made(call):
    """Makes an object and gives it as the server has it."""

    def make(path, obj):
        answer = call("POST", path, obj)
        assert answer.code == 201, answer.message
        return answer.body

    return make


def generation(obj):
    return obj["metadata"]["generation"]


def version(obj):
    return obj["metadata"]["resourceVersion"]


def test_only_a_change_of_the_spec_is_a_new_generation(call, made):
    made(PIPELINES, pipeline())
    path = f"{PIPELINES}/llama"
    labelled = call("PATCH", path, {"metadata": {"labels": {"a": "b"}}}, MERGE).body
    reported = call("PATCH", f"{path}/status", {"status": {"replicas": 1}}, MERGE).body
    changed = call("PATCH", path, {"spec": {"replicas": 2}}, MERGE).body
    assert [generation(each) for each in (labelled, reported, changed)] == [1, 1, 2]


@pytest.mark.parametrize(
    ("patch", "kind"),
    [
        ({"metadata": {"labels": {"a": "b"}}}, MERGE),
        ({"spec": {"replicas": 1}}, MERGE),
        ([{"op": "test", "path": "/spec/replicas", "value": 1}], JSON_PATCH),
    ],
)
def test_a_write_that_changes_nothing_is_no_new_version(call, made, patch, kind):
    obj = made(PIPELINES, {**pipeline(), "metadata": {"name": "llama", "labels": {"a": "b"}}})
    after = call("PATCH", f"{PIPELINES}/llama", patch, kind)
    assert after.code == 200
    assert version(after.body) == version(obj)


def test_applying_the_same_again_is_no_new_version(call, made):
    path = f"{PIPELINES}/llama?fieldManager=m"
    first = call("PATCH", path, pipeline(), APPLY)
    again = call("PATCH", path, pipeline(), APPLY)
    assert (first.code, again.code) == (201, 200)
    assert again.body == first.body


def test_spec_and_status_are_written_apart(call, made):
    made(PIPELINES, pipeline())
    path = f"{PIPELINES}/llama"
    both = {"spec": {"replicas": 7}, "status": {"replicas": 7}}
    as_whole = call("PATCH", path, both, MERGE).body
    assert as_whole["status"] == UNSEEN
    as_status = call("PATCH", f"{path}/status", {**both, "spec": {"replicas": 9}}, MERGE).body
    assert as_status["spec"]["replicas"] == 7
    assert as_status["status"] == {**UNSEEN, "replicas": 7}


def test_apply_leaves_the_part_alone_that_it_does_not_write(call, made):
    made(PIPELINES, pipeline())
    path = f"{PIPELINES}/llama"
    status = {**pipeline(), "spec": {"replicas": 5}, "status": {"replicas": 2}}
    reported = call("PATCH", f"{path}/status?fieldManager=op", status, APPLY).body
    assert (reported["spec"]["replicas"], reported["status"]["replicas"]) == (1, 2)
    dropped = call("PATCH", f"{path}/status?fieldManager=op", pipeline(), APPLY).body
    assert "replicas" not in dropped.get("status", {})
    assert dropped["spec"]["model"]["uri"] == "file:///models/llama"


def test_a_stale_version_is_a_conflict(call, made):
    obj = made(f"{CORE}/configmaps", config_map(a="1"))
    path = f"{CORE}/configmaps/c"
    assert call("PUT", path, {**obj, "data": {"a": "2"}}).code == 200
    late = call("PUT", path, {**obj, "data": {"a": "3"}})
    assert (late.code, late.reason) == (409, "Conflict")
    assert late.message.endswith("please apply your changes to the latest version and try again")


def test_dry_runs_leave_no_trace(call, made):
    assert call("POST", f"{CORE}/configmaps?dryRun=All", config_map()).code == 201
    assert call("GET", f"{CORE}/configmaps/c").code == 404
    obj = made(f"{CORE}/configmaps", config_map(a="1"))
    path = f"{CORE}/configmaps/c"
    tried = call("PATCH", f"{path}?dryRun=All", {"data": {"a": "2"}}, MERGE)
    assert tried.body["data"] == {"a": "2"}
    assert call("DELETE", f"{path}?dryRun=All").code == 200
    assert call("GET", path).body == obj


def test_names_are_generated(made):
    meta = {"generateName": "c-"}
    one, other = (made(f"{CORE}/configmaps", {"metadata": meta})["metadata"] for _ in "ab")
    assert one["name"].startswith("c-")
    assert one["name"] != other["name"]


def test_clients_cannot_set_what_is_the_servers(call, made):
    forged = {"uid": "u", "resourceVersion": "99", "generation": 9, "creationTimestamp": "x"}
    obj = made(f"{CORE}/configmaps", {**config_map(), "metadata": {"name": "c", **forged}})
    for key, value in forged.items():
        assert obj["metadata"].get(key) != value, f"{key} was taken from the client"


@pytest.mark.parametrize(
    ("mode", "code", "warnings"), [("Strict", 400, 0), ("Warn", 201, 1), ("Ignore", 201, 0)]
)
@pytest.mark.parametrize(
    ("place", "obj"),
    [(PIPELINES, pipeline(modle={})), (DEPLOYMENTS, deployment(imge="x"))],
)
def test_unknown_fields(call, place, obj, mode, code, warnings):
    answer = call("POST", f"{place}?fieldValidation={mode}", obj)
    assert answer.code == code
    assert len(answer.warnings) == warnings
    assert "modle" not in str(answer.body.get("spec", ""))
    assert "imge" not in str(answer.body.get("spec", ""))


@pytest.mark.parametrize("count", [1, 2])
def test_an_object_has_one_controller_at_most(call, count):
    owners = [
        {"apiVersion": "v1", "kind": "Pod", "name": n, "uid": n, "controller": True} for n in "ab"
    ]
    meta = {"name": "c", "ownerReferences": owners[:count]}
    answer = call("POST", f"{CORE}/configmaps", {**config_map(), "metadata": meta})
    assert answer.code == (201 if count == 1 else 422)


def test_a_pod_on_a_node_is_deleted_when_its_kubelet_says_so(call, made):
    obj = made(f"{CORE}/pods", pod("p", "n1"))
    path = f"{CORE}/pods/p"
    asked = call("DELETE", path).body["metadata"]
    assert asked["deletionGracePeriodSeconds"] == 30
    sooner = call("DELETE", path, {"gracePeriodSeconds": 5}).body["metadata"]
    assert sooner["deletionGracePeriodSeconds"] == 5
    later = call("DELETE", path, {"gracePeriodSeconds": 20}).body["metadata"]
    assert later["deletionGracePeriodSeconds"] == 5, "a deletion is never put off"
    assert call("GET", path).code == 200
    confirmed = {"gracePeriodSeconds": 0, "preconditions": {"uid": obj["metadata"]["uid"]}}
    assert call("DELETE", path, confirmed).code == 200
    assert call("GET", path).code == 404


def test_a_pod_without_a_node_is_gone_at_once(call, made):
    made(f"{CORE}/pods", pod("p"))
    call("DELETE", f"{CORE}/pods/p")
    assert call("GET", f"{CORE}/pods/p").code == 404


def test_finalizers_keep_an_object_until_they_are_gone(call, made):
    meta = {"name": "c", "finalizers": ["stageline.dev/test"]}
    made(f"{CORE}/configmaps", {**config_map(), "metadata": meta})
    path = f"{CORE}/configmaps/c"
    waiting = call("DELETE", path).body
    assert waiting["metadata"]["deletionTimestamp"]
    assert call("GET", path).body == waiting
    call("PATCH", path, {"metadata": {"finalizers": None}}, MERGE)
    assert call("GET", path).code == 404


def test_another_object_of_the_same_name_is_not_deleted(call, made):
    made(f"{CORE}/configmaps", config_map())
    path = f"{CORE}/configmaps/c"
    refused = call("DELETE", path, {"preconditions": {"uid": "of the one before"}})
    assert (refused.code, refused.reason) == (409, "Conflict")
    assert call("GET", path).code == 200


def test_services_have_an_address_of_their_own_for_life(call, made):
    spec = {"ports": [{"port": 80}]}
    addresses = [
        made(f"{CORE}/services", {"metadata": {"name": name}, "spec": spec})["spec"]["clusterIP"]
        for name in ("a", "b")
    ]
    assert addresses[0] != addresses[1]
    obj = {"metadata": {"name": "a"}, "spec": {"ports": [{"port": 81}]}}
    assert call("PUT", f"{CORE}/services/a", obj).body["spec"]["clusterIP"] == addresses[0]
    moved = call("PATCH", f"{CORE}/services/a", {"spec": {"clusterIP": "1.2.3.4"}}, MERGE)
    assert moved.code == 422


def test_events_of_both_groups_are_the_same(call, made):
    event = {
        "metadata": {"name": "e"},
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "c",
        "reportingInstance": "i",
        "action": "Act",
        "reason": "Did",
        "type": "Normal",
        "note": "hello",
        "regarding": {"kind": "Pod", "name": "p", "namespace": "default"},
    }
    made("/apis/events.k8s.io/v1/namespaces/default/events", event)
    (core,) = call("GET", f"{CORE}/events?fieldSelector=involvedObject.name%3Dp").body["items"]
    assert (core["message"], core["involvedObject"]["name"]) == ("hello", "p")
    assert core["reportingComponent"] == "c"
    (new,) = call("GET", "/apis/events.k8s.io/v1/events").body["items"]
    assert (new["note"], new["reportingController"]) == ("hello", "c")


def test_lists_come_in_pages(call, made):
    for name in "cab":
        made(f"{CORE}/configmaps", config_map(name))
    first = call("GET", f"{CORE}/configmaps?limit=2").body
    token = first["metadata"]["continue"]
    rest = call("GET", f"{CORE}/configmaps?limit=2&continue={token}").body
    names = [each["metadata"]["name"] for each in first["items"] + rest["items"]]
    assert names == ["a", "b", "c"]
    assert "continue" not in rest["metadata"]
    assert call("GET", f"{CORE}/configmaps?continue=nonsense").code == 400


def test_a_budget_forbids_evictions(call, made):
    budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"
    made(
        budgets,
        {
            "metadata": {"name": "b"},
            "spec": {"minAvailable": 1, "selector": {"matchLabels": {"a": "b"}}},
        },
    )
    made(f"{CORE}/pods", pod("p", "n1", labels={"a": "b"}))
    call("PATCH", f"{CORE}/pods/p/status", {"status": {"phase": "Running"}}, MERGE)
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}}
    refused = call("POST", f"{CORE}/pods/p/eviction", eviction)
    assert (refused.code, refused.reason) == (429, "TooManyRequests")
    call("PATCH", f"{budgets}/b/status", {"status": {"disruptionsAllowed": 1}}, MERGE)
    assert call("POST", f"{CORE}/pods/p/eviction", eviction).code == 201
    left = call("GET", f"{budgets}/b").body["status"]["disruptionsAllowed"]
    assert left == 0
    assert call("GET", f"{CORE}/pods/p").body["metadata"]["deletionTimestamp"]


def test_a_namespace_that_ends_takes_nothing_new(call, made):
    made("/api/v1/namespaces", {"metadata": {"name": "other"}})
    place = "/api/v1/namespaces/other"
    ending = call("DELETE", place).body
    assert ending["status"]["phase"] == "Terminating"
    assert call("POST", f"{place}/configmaps", config_map()).code == 403
    finalized = {**ending, "spec": {"finalizers": []}}
    assert call("PUT", f"{place}/finalize", finalized).code == 200
    assert call("GET", place).code == 404


def test_a_crd_that_goes_takes_its_objects_along(call, made):
    made(PIPELINES, pipeline())
    crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    name = "pipelinedeployments.stageline.dev"
    definition = call("GET", f"{crds}/{name}").body
    call("DELETE", f"{crds}/{name}")
    assert call("GET", PIPELINES).code == 404
    made(crds, {"metadata": {"name": name}, "spec": definition["spec"]})
    assert call("GET", PIPELINES).body["items"] == []


@pytest.mark.parametrize(
    ("method", "path", "body", "code"),
    [
        ("POST", f"{CORE}/configmaps", [1], 400),
        ("POST", f"{CORE}/configmaps", {"metadata": [1]}, 400),
        ("POST", f"{CORE}/configmaps", {"metadata": {"labels": {"a": 1}}}, 400),
        ("POST", f"{CORE}/configmaps", {}, 422),
        ("POST", PIPELINES, {"metadata": "x"}, 400),
        ("POST", PIPELINES, {**pipeline(), "spec": "x"}, 422),
        ("POST", PIPELINES, {**pipeline(), "spec": None}, 422),
        ("POST", PIPELINES, {**pipeline(), "kind": "Other"}, 422),
        ("POST", PIPELINES, {**pipeline(), "apiVersion": "v2"}, 400),
        ("POST", "/api/v1/namespaces/none/configmaps", config_map(), 404),
        ("PUT", f"{CORE}/configmaps/none", config_map("none"), 404),
        ("PATCH", f"{CORE}/configmaps/none", {}, 415),
        ("POST", f"{CORE}/configmaps/none", config_map(), 405),
        ("GET", f"{CORE}/configmaps/none/status", None, 404),
        ("GET", "/apis/nonsense/v1/things", None, 404),
        ("GET", "/nonsense", None, 404),
        ("GET", f"{CORE}/configmaps?resourceVersion=x", None, 400),
        ("DELETE", f"{CORE}/configmaps/none", {"gracePeriodSeconds": "x"}, 400),
        ("PATCH", f"{PIPELINES}/x?fieldManager=m", "text", 415),
    ],
)
def test_bad_requests_are_answered(call, method, path, body, code):
    answer = call(method, path, body)
    assert answer.code == code, answer.body
    assert answer.body["kind"] == "Status"


def test_bodies_that_are_too_large_are_refused(call):
    assert call("POST", f"{CORE}/configmaps", config_map(a="x" * 4_000_000)).code == 413
