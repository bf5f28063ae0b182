"""Where a pod finds the model: folders, addresses, credentials, the cache."""

import json

import kubernetes_validate
import pytest

from stageline_operator import render
from stageline_operator.settings import RenderSettings
from support.profiles import dense
from support.rendered import container, document, env, rendered

HOST = RenderSettings(allow_host_path=True)


@pytest.mark.parametrize(
    ("uri", "inside", "volume"),
    [
        (
            "pvc://models",
            "file:///var/run/stageline/model",
            {"persistentVolumeClaim": {"claimName": "models", "readOnly": True}},
        ),
        ("file:///srv/./m/../llama/", "file:///srv/llama", {
            "hostPath": {"path": "/srv/llama", "type": "Directory"}}),
    ],
)  # fmt: skip
def test_all_that_reads_the_model_finds_it_in_one_place(uri, inside, volume):
    made = rendered(uri=uri, settings=HOST)
    router = made.router()["spec"]["template"]
    for pod, name in ((made.stage(), "worker"), (made.profile(), "profile"), (router, "router")):
        mounts = {mount["name"]: mount for mount in container(pod, name)["volumeMounts"]}
        volumes = {each.pop("name"): each for each in pod["spec"]["volumes"]}
        assert volumes["model"] == volume
        assert mounts["model"]["readOnly"]
    assert json.loads(env(made.worker())["STAGELINE_DOCUMENT"])["uri"] == inside
    assert container(made.profile(), "profile")["args"][0] == inside
    assert document(made).uri == inside


@pytest.mark.parametrize(
    ("uri", "commit", "inside"),
    [
        ("hf://a/b@main", "c0ffee", "hf://a/b@c0ffee"),
        ("hf://a/b", "c0ffee", "hf://a/b@c0ffee"),
        ("hf://a/b@main", "", "hf://a/b@main"),  # a mirror that names no commits
        ("s3://models/llama", "", "s3://models/llama"),
    ],
)
def test_all_stages_and_routers_read_what_the_profile_read(uri, commit, inside):
    made = rendered("{pipeline: {stages: 2}}", uri=uri, profile=dense(commit=commit))
    documents = [json.loads(env(made.worker(stage))["STAGELINE_DOCUMENT"]) for stage in (0, 1)]
    assert [each["uri"] for each in documents] == [inside, inside]
    assert document(made).uri == inside
    assert container(made.profile(), "profile")["args"][0] == uri
    assert not {"model", "cache"} & {each["name"] for each in made.stage()["spec"]["volumes"]}


@pytest.mark.parametrize("uri", ["file:///", "file:////", "file://./m", "file:///a:b"])
def test_what_is_no_folder_of_a_node_is_not_mounted(uri):
    with pytest.raises(render.RenderError, match="write its whole path") as refused:
        rendered(uri=uri, settings=HOST).stage()
    assert refused.value.reason == "ModelSourceRefused"


def test_credentials_go_to_all_that_reads_the_model_and_to_nothing_else():
    made = rendered("{model: {secretName: token}}", uri="hf://a/b")
    secret = [{"secretRef": {"name": "token"}}]
    assert made.worker()["envFrom"] == secret
    assert container(made.profile(), "profile")["envFrom"] == secret
    assert container(made.router()["spec"]["template"], "router")["envFrom"] == secret
    assert "envFrom" not in rendered(uri="hf://a/b").worker()


CACHES = {
    "pvc://kept": ({"persistentVolumeClaim": {"claimName": "kept"}}, "/var/run/stageline/cache"),
    "pvc://kept/of/llama": (
        {"persistentVolumeClaim": {"claimName": "kept"}},
        "/var/run/stageline/cache/of/llama",
    ),
    "file:///var/cache": (
        {"hostPath": {"path": "/var/cache", "type": "DirectoryOrCreate"}},
        "/var/run/stageline/cache",
    ),
}


@pytest.mark.parametrize("cache", CACHES)
def test_stages_alone_have_the_cache_and_may_write_to_it(cache):
    volume, folder = CACHES[cache]
    made = rendered(f"{{model: {{cache: '{cache}'}}}}", uri="hf://a/b", settings=HOST)
    assert {"name": "cache", **volume} in made.stage()["spec"]["volumes"]
    mounts = {mount["name"]: mount for mount in made.worker()["volumeMounts"]}
    assert mounts["cache"] == {"name": "cache", "mountPath": "/var/run/stageline/cache"}
    assert made.stage()["spec"]["securityContext"]["fsGroup"] == 65532
    assert json.loads(env(made.worker())["STAGELINE_DOCUMENT"])["cache"] == folder
    kubernetes_validate.validate(made.stage(), "1.37", strict=True)
    others = [made.profile(), made.router()["spec"]["template"]]
    for pod in (*others, rendered(uri="hf://a/b").stage()):
        assert "cache" not in {volume["name"] for volume in pod["spec"]["volumes"]}
        assert "fsGroup" not in pod["spec"]["securityContext"]
