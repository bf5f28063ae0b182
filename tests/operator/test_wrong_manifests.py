"""Every wrong manifest is refused with the words that say why, before any stage pod."""

import base64
import zlib

import pytest
import yaml

from stageline_api.manifest import ManifestError, read_manifest
from stageline_operator.planning import planning
from stageline_operator.render import RenderError, profile_pod
from stageline_operator.settings import RenderSettings
from support.profiles import dense
from support.world import World
from support.wrong import BASE, manifest
from support.wrong_manifests import LATER, WRONG

SETTINGS = RenderSettings()


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.what)
def test_what_is_wrong_is_said(wrong):
    with pytest.raises(ManifestError) as refused:
        read_manifest(yaml.safe_dump(manifest(wrong.change)), "llama.yaml")
    assert wrong.words in str(refused.value)
    assert "\n" not in str(refused.value).replace("\nllama.yaml:", "")
    assert len(str(refused.value)) < 700, "a user's own text fills the refusal"


def test_there_are_a_hundred_of_them():
    assert len({wrong.change for wrong in WRONG}) == len(WRONG) >= 100
    assert read_manifest(BASE, "llama.yaml").metadata.name == "llama"


def read(change):
    deployment = read_manifest(yaml.safe_dump(manifest(change)), "llama.yaml")
    resource = {
        "apiVersion": deployment.api_version,
        "kind": deployment.kind,
        "metadata": {"name": "llama", "namespace": "default", "uid": "1"},
    }
    return resource, deployment


def profiled(resource, deployment):
    """The pod that has profiled its model, by name."""
    pod = profile_pod(resource, deployment, SETTINGS)
    packed = base64.b64encode(zlib.compress(dense().model_dump_json().encode())).decode()
    ended = {"terminated": {"exitCode": 0, "message": packed}}
    status = {"phase": "Succeeded", "containerStatuses": [{"name": "profile", "state": ended}]}
    return {pod["metadata"]["name"]: {**pod, "status": status}}


@pytest.mark.parametrize("later", LATER, ids=lambda later: later.what)
def test_what_cannot_be_is_refused_before_a_stage_exists(later):
    resource, deployment = read(later.change)
    try:
        pods = profiled(resource, deployment)
    except RenderError:  # planning says the same again, as a refusal
        pods = {}
    made = planning(resource, deployment, [], pods, SETTINGS)
    assert (made.record, made.refused) == (None, later.reason)
    assert later.words in made.message


def test_what_is_right_is_planned():
    resource, deployment = read("spec: {pipeline: {stages: 2}}")
    made = planning(resource, deployment, [], profiled(resource, deployment), SETTINGS)
    assert made.record is not None, made.message
    assert made.refused == ""


@pytest.mark.parametrize(
    "wrong",
    [row for row in WRONG if "spec" in yaml.safe_load(row.change)],
    ids=lambda wrong: wrong.what,
)
def test_what_an_api_server_lets_in_all_the_same_harms_nobody(wrong):
    """An older CRD, or none that is enforced: the operator meets the spec as it was written."""
    one = World()
    one.resource["spec"] = manifest(wrong.change).get("spec")
    one.settle()
    assert not one.stage_pods
    planned = one.condition("Planned")
    assert (planned["status"], planned["reason"]) == ("False", "InvalidSpec")
    assert wrong.words in planned["message"]
    one.resource["spec"] = manifest("spec: {pipeline: {stages: 2}}")["spec"]
    one.settle()
    assert one.condition("Ready")["status"] == "True", "it recovers with the spec"
