"""Names: valid for any legal owner, one for each child, and never another's."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stageline_operator import names
from stageline_operator.observed import PipelineKey, PodKey
from support.rendered import rendered

LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
SERVICE = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")

owners = st.from_regex(re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"), fullmatch=True)
revisions = st.text("0123456789abcdef", min_size=10, max_size=10)
keys = st.builds(PodKey, revisions, st.integers(0, 9999), st.integers(0, 255))


def all_names(owner, key):
    return [
        names.router(owner),
        names.service_account(owner),
        names.revision(owner, key.revision),
        names.pipeline_name(owner, key.pipeline),
        names.pod_name(owner, key),
        names.profile_pod(owner, key.revision),
    ]


@given(owners, keys)
def test_every_name_may_be_a_label_and_a_host(owner, key):
    for name in all_names(owner, key):
        assert LABEL.fullmatch(name), f"{name} is no DNS label"
    for name in (names.router_service(owner), names.stages_service(owner)):
        assert SERVICE.fullmatch(name), f"{name} is no name of a Service"


@given(owners, owners, keys, keys)
def test_no_two_pods_have_one_name(owner, other, key, another):
    same = names.pod_name(owner, key) == names.pod_name(other, another)
    assert same == ((owner, key) == (other, another))


@given(keys, keys)
def test_long_owners_that_begin_alike_are_told_apart(key, another):
    one, two = "a" * 62 + "b", "a" * 62 + "c"
    assert names.pod_name(one, key) != names.pod_name(two, another)
    assert names.stages_service(one) != names.stages_service(two)
    assert names.router(one) != names.router(two)


def test_short_names_are_as_people_read_them():
    key = PodKey("abcdef0123", 1, 2)
    assert names.pod_name("llama", key) == "llama-abcdef0123-1-2"
    assert names.pipeline_name("llama", key.pipeline) == "llama-abcdef0123-1"
    assert names.router_service("llama") == "llama"
    assert names.stages_service("llama") == "llama-stages"
    assert names.router("llama") == "llama-router"
    assert names.router_service("70b") == "pld-70b"


@given(keys)
def test_labels_say_which_stage_a_pod_is(key):
    made = rendered("{pipeline: {stages: 2}}")
    pod = made.stage(1, key.index)
    assert names.pod_key(pod) == PodKey(made.record.revision, key.index, 1)


@pytest.mark.parametrize(
    "labels",
    [
        None,
        {},
        {"stageline.dev/revision": "a", "stageline.dev/pipeline": "0"},
        {"stageline.dev/revision": "a", "stageline.dev/pipeline": "x", "stageline.dev/stage": "0"},
    ],
)
def test_a_pod_whose_labels_do_not_say_is_no_stage(labels):
    assert names.pod_key({"metadata": {"labels": labels}}) is None


@given(st.lists(st.builds(PipelineKey, revisions, st.integers(0, 9999)), unique=True))
def test_a_routers_document_gives_back_what_is_kept(kept):
    assert names.kept_pipelines(MADE.config(*kept)) == tuple(kept)


MADE = rendered()


@pytest.mark.parametrize(
    "data",
    [None, {}, {"router.json": "{}"}, {names.KEPT: "{"}, {names.KEPT: "[1]"}, {names.KEPT: "7"}],
)
def test_a_document_that_was_spoilt_keeps_nothing(data):
    assert names.kept_pipelines({"data": data}) is None
    assert names.kept_pipelines(None) is None
