"""A child is sent again when it is not what is wished, and only then."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stageline_operator.difference import covers, is_as_wished, stamped

WISH = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "a-router", "labels": {"app": "a"}},
    "spec": {
        "replicas": 1,
        "template": {
            "spec": {
                "containers": [
                    {
                        "name": "router",
                        "image": "router:1",
                        "resources": {"limits": {"cpu": "1000m", "memory": "1024Mi"}},
                    }
                ],
                "tolerations": [{"key": "a"}, {"key": "b"}],
            }
        },
    },
}


def as_kept():
    """WISH as an API server gives it back: defaulted, normalised, touched by others."""
    live = copy.deepcopy(stamped(WISH))
    live["metadata"] |= {"uid": "1", "resourceVersion": "7"}
    live["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = "1"
    live["spec"]["strategy"] = {"type": "RollingUpdate"}
    live["status"] = {"replicas": 1}
    pod = live["spec"]["template"]["spec"]
    pod["containers"][0] |= {"imagePullPolicy": "IfNotPresent"}
    pod["containers"][0]["resources"]["limits"] = {"cpu": "1", "memory": "1Gi"}
    pod["containers"].insert(0, {"name": "proxy", "image": "injected"})
    return live


def test_what_the_api_server_and_others_add_makes_no_difference():
    assert is_as_wished(as_kept(), stamped(WISH))


def test_a_child_that_is_not_there_is_not_as_wished():
    assert not is_as_wished(None, stamped(WISH))


def test_a_wish_that_says_less_than_before_is_another_wish():
    less = copy.deepcopy(WISH)
    del less["spec"]["template"]["spec"]["tolerations"]
    assert covers(as_kept(), less), "everything that is wished is there"
    assert not is_as_wished(as_kept(), stamped(less)), "but something is there of an older wish"


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("a number", lambda live: live["spec"].update(replicas=7)),
        ("a label taken away", lambda live: live["metadata"]["labels"].pop("app")),
        ("all labels", lambda live: live["metadata"].pop("labels")),
        ("the stamp", lambda live: live["metadata"].pop("annotations")),
        ("an image", lambda live: pod(live)["containers"][1].update(image="other")),
        ("a container", lambda live: pod(live)["containers"].pop(1)),
        ("another limit", lambda live: limits(live).update(cpu="2")),
        ("a missing limit", lambda live: limits(live).pop("cpu")),
        ("an unreadable limit", lambda live: limits(live).update(cpu="much")),
        ("a toleration", lambda live: pod(live)["tolerations"].pop()),
        ("another toleration", lambda live: pod(live)["tolerations"].reverse()),
        ("a toleration more", lambda live: pod(live)["tolerations"].append({"key": "c"})),
        ("an object turned to text", lambda live: live.update(spec="gone")),
    ],
)
def test_drift_is_seen(what, change):
    live = as_kept()
    change(live)
    assert not is_as_wished(live, stamped(WISH)), f"{what} has changed"


def pod(live):
    return live["spec"]["template"]["spec"]


def limits(live):
    return pod(live)["containers"][1]["resources"]["limits"]


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inside: (
        st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=3), inside, max_size=3)
    ),
    max_leaves=12,
)


@given(plain)
def test_everything_covers_itself(value):
    assert covers(value, value)


@given(st.dictionaries(st.text(max_size=3), plain, max_size=3), plain)
def test_more_covers_less(value, more):
    assert covers({**value, "longer than the others": more}, value)


@given(st.dictionaries(st.text(max_size=3), st.integers(), min_size=1, max_size=3), st.data())
def test_a_changed_value_is_not_covered(value, data):
    key = data.draw(st.sampled_from(sorted(value)))
    assert not covers({**value, key: value[key] + 1}, value)
