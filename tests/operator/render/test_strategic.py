"""Strategic merge patches: as kubectl itself merges them."""

import contextlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from stageline_operator.render.strategic import POD_SPEC, MergeError, merged

BASE = yaml.safe_load("""
hostname: h
nodeSelector: {a: b, c: d}
securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
tolerations: [{key: one, operator: Exists}]
containers:
- name: worker
  image: i
  args: [x, y]
  env: [{name: A, value: '1'}, {name: B, value: '2'}, {name: C, value: '3'}]
  ports: [{containerPort: 7070, name: grpc}]
  volumeMounts: [{name: s, mountPath: /tmp}, {name: m, mountPath: /m}]
- name: second
  image: j
volumes: [{name: s, emptyDir: {}}, {name: m, emptyDir: {}}]
""")
PATCHES = {
    "nothing": "{}",
    "a scalar": "{hostname: other}",
    "a map": "{nodeSelector: {c: e, f: g}}",
    "null removes": "{hostname: null, nodeSelector: {a: null}}",
    "null of what is not there": "{priorityClassName: null, affinity: {nodeAffinity: null}}",
    "a deep map": "{securityContext: {runAsUser: 1, seccompProfile: {type: Unconfined}}}",
    "a map replaced": "{nodeSelector: {$patch: replace, z: y}}",
    "a map emptied": "{nodeSelector: {$patch: delete}}",
    "an atomic list": "{tolerations: [{key: two}]}",
    "a container changed": "{containers: [{name: worker, image: k}]}",
    "a container added": "{containers: [{name: side, image: k}]}",
    "a container added and one changed": "{containers: [{name: second, image: k}, {name: side}]}",
    "a container changed and one added": "{containers: [{name: side}, {name: worker, image: k}]}",
    "both turned round": "{containers: [{name: second, image: k}, {name: worker, image: l}]}",
    "a container removed": "{containers: [{name: second, $patch: delete}]}",
    "one removed, one added": "{containers: [{name: second, $patch: delete}, {name: side}]}",
    "containers replaced": "{containers: [{$patch: replace}, {name: only, image: k}]}",
    "variables": "{containers: [{name: worker, env: [{name: B, value: x}, {name: D}]}]}",
    "a variable removed": "{containers: [{name: worker, env: [{name: B, $patch: delete}]}]}",
    "variables turned round": "{containers: [{name: worker, env: [{name: C}, {name: A}]}]}",
    "arguments": "{containers: [{name: worker, args: [z]}]}",
    "a port": "{containers: [{name: worker, ports: [{containerPort: 7070, name: other}]}]}",
    "a mount by its path": "{containers: [{name: worker, volumeMounts: [{mountPath: /m, name: n}, "
    "{mountPath: /n, name: s}]}]}",
    "a volume of another kind": "{volumes: [{name: m, $retainKeys: [name, persistentVolumeClaim], "
    "persistentVolumeClaim: {claimName: c}}]}",
    "a spread by its key": "{topologySpreadConstraints: [{topologyKey: zone, maxSkew: 1}]}",
    "secrets to pull with": "{imagePullSecrets: [{name: x}]}",
    "hosts": "{hostAliases: [{ip: 1.2.3.4, hostnames: [a]}]}",
}  # fmt: skip


@pytest.mark.parametrize("what", PATCHES)
def test_a_patch_does_what_kubectl_does(what, tmp_path):
    kubectl = shutil.which("kubectl", path=str(Path(sys.executable).parent))
    assert kubectl is not None, "no kubectl beside the interpreter: make install brings it"
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": BASE}
    (tmp_path / "pod.json").write_text(json.dumps(pod))
    patch = yaml.safe_load(PATCHES[what])
    done = subprocess.run(
        [kubectl, "patch", "--local", "-f", tmp_path / "pod.json", "--type", "strategic",
         "-p", json.dumps({"spec": patch}), "-o", "json"],
        capture_output=True, text=True, check=True, timeout=20,
    )  # fmt: skip
    assert merged(BASE, patch) == json.loads(done.stdout)["spec"]


@pytest.mark.parametrize(
    ("patch", "words"),
    [
        ("{containers: [{image: x}]}", "spec.containers has an entry without name"),
        ("{containers: [worker]}", "spec.containers has an entry that is no mapping"),
        (
            "{containers: [{name: worker, env: [{value: x}]}]}",
            "spec.containers[worker].env has an entry without name",
        ),
        ("{nodeSelector: {$patch: remove}}", "spec.nodeSelector has $patch: remove"),
        ("{$setElementOrder/containers: []}", "spec has $setElementOrder/containers"),
        ("{volumes: [{name: m, $retainKeys: name}]}", "$retainKeys that is no list"),
        ("{containers: [{name: [1], image: x}]}", "spec.containers has an entry without name"),
        ("{containers: [{$patch: [1], name: x}]}", "$patch"),
    ],
)
def test_what_is_no_patch_is_refused(patch, words):
    with pytest.raises(MergeError) as refused:
        merged(BASE, yaml.safe_load(patch))
    assert words in str(refused.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
named = st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from("abcd")}, optional={"value": st.text(max_size=3)}
    ),
    max_size=4,
    unique_by=lambda entry: entry["name"],
)
specs = st.fixed_dictionaries(
    {},
    optional={
        "hostname": st.text(max_size=3),
        "nodeSelector": st.dictionaries(st.sampled_from("xyz"), st.text(max_size=2)),
        "volumes": named,
        "containers": st.lists(
            st.fixed_dictionaries({"name": st.sampled_from("abcd")}, optional={"env": named}),
            max_size=3,
            unique_by=lambda entry: entry["name"],
        ),
    },
)


@given(specs)
def test_an_empty_patch_changes_nothing(base):
    assert merged(base, {}) == base


@given(specs, specs)
def test_a_patch_twice_is_a_patch_once(base, patch):
    once = merged(base, patch)
    assert merged(once, patch) == once


@given(specs, specs)
def test_all_of_a_patch_is_in_what_comes_of_it_and_nothing_of_it_twice(base, patch):
    made = merged(base, patch)
    for name in ("volumes", "containers"):
        keys = [entry["name"] for entry in made.get(name, ())]
        wanted = {entry["name"] for part in (base, patch) for entry in part.get(name, ())}
        assert sorted(keys) == sorted(wanted)
    assert made.get("nodeSelector", {}) == base.get("nodeSelector", {}) | patch.get(
        "nodeSelector", {}
    )


@given(specs, st.dictionaries(st.sampled_from([*sorted(POD_SPEC), "x"]), json_values))
def test_any_json_is_merged_or_refused_in_a_sentence(base, patch):
    with contextlib.suppress(MergeError):
        assert isinstance(merged(base, patch), dict)
