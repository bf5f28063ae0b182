"""Server-side apply: who owns what, what goes, and who disagrees."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stageline_local.apiserver import ownership, schema
from stageline_local.apiserver.errors import Refusal
from stageline_local.apiserver.fieldsets import from_fields_v1, parts, said, to_fields_v1
from stageline_local.apiserver.kinds import BUILT_IN

DEPLOYMENT = next(kind for kind in BUILT_IN if kind.kind == "Deployment")
NODE = schema.built_in(DEPLOYMENT)
TIME = "2026-01-01T00:00:00Z"


def manager(name: str, operation: str = "Apply") -> ownership.Manager:
    return ownership.Manager(name, operation, "", TIME)


def apply(live, config, who, *, force=False):
    """The object after `who` has applied `config`, with its managedFields."""
    new, claims = ownership.applied(DEPLOYMENT, NODE, live, config, manager(who), force=force)
    return ownership.with_claims(new, claims)


def edit(old, new, who):
    """The object after `who` has put `new` in place of `old`."""
    claims = ownership.updated(DEPLOYMENT, NODE, old, new, manager(who, "Update"))
    return ownership.with_claims(new, claims)


def owned(obj, who):
    return {
        path
        for claim in ownership.claims_of(obj).values()
        if claim.manager.name == who
        for path in claim.paths
    }


def bare(obj):
    meta = {key: value for key, value in obj["metadata"].items() if key != "managedFields"}
    return {**obj, "metadata": meta}


def container(name, **fields):
    return {"name": name, **fields}


def spec(*containers, **fields):
    return {"metadata": {}, "spec": {"template": {"spec": {"containers": [*containers]}}, **fields}}


EMPTY = {"metadata": {}}

names = st.sampled_from("abc")
values = st.sampled_from(["1", "2"])
maps = st.dictionaries(names, values, max_size=3)
containers = st.fixed_dictionaries(
    {"name": names},
    optional={
        "image": values,
        "command": st.lists(values, max_size=2),
        "env": st.lists(
            st.fixed_dictionaries({"name": names, "value": values}),
            max_size=2,
            unique_by=lambda each: each["name"],
        ),
    },
)
configs = st.fixed_dictionaries(
    {
        "metadata": st.fixed_dictionaries({}, optional={"labels": maps}),
        "spec": st.fixed_dictionaries(
            {},
            optional={
                "replicas": st.integers(0, 2),
                "selector": st.fixed_dictionaries({"matchLabels": maps}),
                "template": st.fixed_dictionaries(
                    {
                        "spec": st.fixed_dictionaries(
                            {
                                "containers": st.lists(
                                    containers, max_size=3, unique_by=lambda each: each["name"]
                                )
                            }
                        )
                    }
                ),
            },
        ),
    }
)


def leaves(value, node=NODE, path=()):
    """Path and value of everything that is one value to the schema."""
    if not isinstance(value, dict | list) or not said_apart(node, value):
        return {path: value}
    return {
        where: leaf
        for name, (inner, child) in parts(node, value).items()
        for where, leaf in leaves(child, inner, (*path, name)).items()
    }


def said_apart(node, value):
    return not node.atomic if isinstance(value, dict) else bool(node.keys or node.is_set)


def at(obj, path):
    return leaves(obj).get(path, "absent")


def conflicts(first, second):
    """The fields that `second` may not take from `first`."""
    try:
        apply(apply(EMPTY, first, "m"), second, "n")
    except Refusal as refusal:
        return {cause["field"] for cause in refusal.details["causes"]}
    return set()


@given(configs)
def test_applying_twice_changes_nothing(config):
    once = apply(EMPTY, config, "m")
    assert apply(once, config, "m") == once


@given(configs, configs)
def test_what_is_applied_is_there(first, second):
    obj = apply(apply(EMPTY, first, "m"), second, "n", force=True)
    for path, value in leaves(second).items():
        assert at(obj, path) == value, f"{path} was applied as {value}"


@given(configs, configs, configs)
def test_what_a_manager_drops_goes_unless_another_says_it(first, others, then):
    obj = apply(apply(EMPTY, first, "m"), others, "n", force=True)
    after = apply(obj, then, "m", force=True)
    dropped = owned(obj, "m") - said(NODE, then)
    theirs = owned(obj, "n")
    for path in dropped & leaves(first).keys():
        if path not in theirs:
            assert path not in leaves(after), f"nobody says {path} any more, but it is still there"
    for path in theirs & leaves(others).keys():
        if path not in leaves(then):
            assert at(after, path) == leaves(others)[path], f"{path} was n's, and m took it along"


@given(configs, configs)
def test_conflicts_do_not_depend_on_who_was_first(one, other):
    assert conflicts(one, other) == conflicts(other, one)


@given(configs, configs)
def test_force_takes_fields_from_their_owner(first, second):
    obj = apply(apply(EMPTY, first, "m"), second, "n", force=True)
    for path, value in leaves(first).items():
        if at(obj, path) != value:
            assert path not in owned(obj, "m"), f"m still owns {path}, which n has changed"


@given(configs)
def test_fields_survive_their_way_through_json(config):
    paths = said(NODE, config)
    assert from_fields_v1(to_fields_v1(paths)) == paths


@given(configs, configs)
def test_an_edit_owns_what_it_changed(first, second):
    obj = apply(EMPTY, first, "m")
    after = edit(obj, {**second, "metadata": dict(second["metadata"])}, "kubectl")
    for path, value in leaves(second).items():
        if value != {} and at(obj, path) != value:
            assert path in owned(after, "kubectl"), f"kubectl changed {path} and does not own it"
    assert not owned(after, "m") - said(NODE, first), "an edit gives nothing to others"


def test_a_conflict_names_who_and_what():
    obj = edit(EMPTY, spec(container("c", image="1"), replicas=1), "kubectl")
    with pytest.raises(Refusal) as caught:
        apply(obj, spec(container("c", image="2"), replicas=2), "operator")
    assert caught.value.message == (
        'Apply failed with 2 conflicts: conflicts with "kubectl" using apps/v1:\n'
        '- .spec.replicas\n- .spec.template.spec.containers[name="c"].image'
    )


def test_the_same_value_is_no_conflict_and_both_own_it():
    obj = apply(apply(EMPTY, spec(replicas=1), "m"), spec(replicas=1), "n")
    path = ("f:spec", "f:replicas")
    assert path in owned(obj, "m")
    assert path in owned(obj, "n")


def test_defaults_of_a_dropped_container_go_with_it():
    obj = apply(EMPTY, spec(container("a"), container("b")), "m")
    inside = obj["spec"]["template"]["spec"]
    defaulted = [{**each, "imagePullPolicy": "Always"} for each in inside["containers"]]
    live = {**obj, "spec": {"template": {"spec": {"containers": defaulted}}}}
    after = apply(live, spec(container("a")), "m")
    assert [each["name"] for each in after["spec"]["template"]["spec"]["containers"]] == ["a"]


def test_a_part_that_others_use_stays_when_its_manager_goes():
    first = apply(EMPTY, spec(container("a", image="1")), "m")
    both = apply(first, spec(container("a", env=[{"name": "x", "value": "1"}])), "n")
    after = apply(both, spec(), "m")
    assert bare(after)["spec"]["template"]["spec"]["containers"] == [
        {"name": "a", "env": [{"name": "x", "value": "1"}]}
    ]


@pytest.mark.parametrize(
    ("live", "config", "merged"),
    [
        ("abc", "abc", "abc"),
        ("abc", "cba", "cba"),
        ("ab", "c", "abc"),
        ("abc", "b", "abc"),
        ("ac", "bc", "abc"),
        ("", "ba", "ba"),
        ("abc", "", "abc"),
    ],
)
def test_lists_are_merged_in_the_order_of_what_is_applied(live, config, merged):
    node = NODE.child("spec").child("template").child("spec").child("containers")
    found = ownership.merge(node, [*map(container, live)], [*map(container, config)])
    assert "".join(each["name"] for each in found) == merged
