"""Documents: what stages and routers are told, and when a revision is another one."""

import pytest

from stageline_api.documents import PipelineAddress
from stageline_api.manifest import read_manifest
from stageline_api.plan import plan
from stageline_api.plan_request import Device, offered_bytes, plan_request
from stageline_api.pods import PodTemplate, Resources
from stageline_api.rendering import (
    RenderError,
    Ring,
    drain_seconds,
    revision,
    router_document,
    stage_document,
)
from support.profiles import dense

MANIFEST = """\
apiVersion: stageline.dev/v1alpha1
kind: PipelineDeployment
metadata: {name: llama}
spec:
  model: {uri: 'hf://a/b'}
  pipeline: {stages: 2}
  replicas: 2
"""
ADDRESSES = ("a:1", "b:2")


def deployed(more=""):
    return read_manifest(MANIFEST + more, "llama.yaml")


def planned(deployment):
    return plan(dense(5), plan_request(deployment))


RING = Ring("llama", "llama-1", "abc", "file:///inside", ADDRESSES)


def documents(more=""):
    deployment = deployed(more)
    made = planned(deployment)
    return [stage_document(deployment.spec, made, RING, stage, "h:7") for stage in (0, 1)]


def revised(more="", old="", new=""):
    deployment = read_manifest((MANIFEST + more).replace(old, new), "llama.yaml")
    return revision(deployment, planned(deployment), "worker:1")


def test_every_stage_is_told_what_it_must_know():
    made = planned(deployed())
    first, last = documents()
    assert (first.stage, first.layers, last.stage, last.layers) == (0, (0, 3), 1, (3, 5))
    assert (first.next, last.next, last.leader) == ("b:2", "a:1", "a:1")
    assert (first.listen, first.addresses) == ("h:7", ADDRESSES)
    assert (first.model, first.pipeline, first.revision) == ("llama", "llama-1", "abc")
    assert first.uri == "file:///inside", "a stage finds the model where its pod has it"
    assert (first.plan_hash, first.dtype) == (made.plan_hash, "bfloat16")
    assert (first.max_model_len, first.max_sequences, first.prefill_chunk) == (8192, 16, 512)


def test_what_the_spec_sets_reaches_the_stages():
    first, _ = documents(
        "  generation: {maxSequences: 3, prefillChunk: 7}\n  router: {maxQueue: 9}\n"
    )
    assert (first.max_sequences, first.prefill_chunk, first.max_waiting) == (3, 7, 9)


def test_halved_weights_reach_the_stages_and_change_the_revision_of_float32():
    in_float32 = ("hf://a/b'", "hf://a/b', dtype: float32")
    halved = ("hf://a/b'", "hf://a/b', dtype: float32, weightDtype: float16")
    assert revised("", *halved) != revised("", *in_float32)
    deployment = read_manifest(MANIFEST.replace(*halved), "llama.yaml")
    document = stage_document(deployment.spec, planned(deployment), RING, 0, "h:7")
    assert (document.dtype, document.weight_dtype) == ("float32", "float16")
    assert documents()[0].weight_dtype is None


def test_the_router_is_told_where_the_pipelines_are():
    deployment = deployed("  batching: {maxBatchSize: 4, maxDelay: 500us}\n")
    pipelines = (PipelineAddress(name="llama-0", leader="a:1", tls=True),)
    made = router_document(deployment, "file:///inside", "h:8001", "h:7072", pipelines)
    assert (made.pipelines, made.health) == (pipelines, "h:7072")
    assert (made.tls_secret, made.token_secret) == ("", "")
    assert (made.model, made.uri, made.listen) == ("llama", "file:///inside", "h:8001")
    assert (made.max_batch_size, made.max_delay_milliseconds, made.max_queue) == (4, 0.5, 1024)
    assert made.drain_seconds == 25


def test_a_router_knows_the_names_of_the_secrets_that_it_may_miss():
    front = "  router: {tls: {secretName: front}, auth: {tokenSecretName: clients}}\n"
    made = router_document(deployed(front), "file:///inside", "h:8001", "h:7072", ())
    assert (made.tls_secret, made.token_secret) == ("front", "clients")


@pytest.mark.parametrize(
    ("graces", "seconds"),
    [([], 25), ([None], 25), ([600], 595), ([600, 60], 55), ([600, None], 595), ([3], 0)],
)
def test_a_pod_drains_for_as_long_as_its_grace_allows(graces, seconds):
    templates = [
        None if grace is None
        else PodTemplate.model_validate({"spec": {"terminationGracePeriodSeconds": grace}})
        for grace in graces
    ]  # fmt: skip
    assert drain_seconds(*templates) == seconds


def test_a_transport_that_is_not_there_is_refused():
    text = MANIFEST.replace("stages: 2", "stages: 2, transport: collective")
    deployment = read_manifest(text, "llama.yaml")
    made = planned(deployment)
    with pytest.raises(RenderError) as refused:
        stage_document(deployment.spec, made, RING, 0, "h:7")
    assert str(refused.value) == (
        "spec.pipeline.transport collective of llama is not in this version: "
        "use auto, socket or grpc"
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("replicas: 2", "replicas: 3"),
        ("kind: PipelineDeployment", "kind: PipelineDeployment\nstatus: {replicas: 2}"),
        ("spec:", "spec:\n  batching: {maxBatchSize: 4}"),
        ("spec:", "spec:\n  router: {port: 9}"),
    ],
)
def test_what_running_stages_do_not_notice_keeps_the_revision(old, new):
    assert revised(old=old, new=new) == revised()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("hf://a/b", "hf://a/c"),
        ("hf://a/b'", "hf://a/b', dtype: float32"),
        ("hf://a/b'", "hf://a/b', dtype: float32, weightDtype: float16"),
        ("stages: 2", "stages: 3"),
        ("stages: 2", "partition: [2, 3]"),
        ("stages: 2", "stages: 2, device: cpu"),
        ("stages: 2", "stages: 2, transport: grpc"),
        ("spec:", "spec:\n  generation: {maxSequences: 4}"),
        ("spec:", "spec:\n  resources: {limits: {cpu: 2}}"),
        ("spec:", "spec:\n  stageOverrides: [{stages: [1], nodeSelector: {a: b}}]"),
        ("spec:", "spec:\n  router: {maxQueue: 5}"),
    ],
)
def test_what_stages_must_be_started_anew_for_changes_the_revision(old, new):
    assert revised(old=old, new=new) != revised()


GIB = 1024**3


@pytest.mark.parametrize(
    ("resources", "device", "offered"),
    [
        ({"limits": {"memory": "2Gi"}}, "auto", 2 * GIB),
        ({"limits": {"memory": "2Gi"}}, "cpu", 2 * GIB),
        ({"limits": {"memory": "2Gi"}}, "cuda", None),
        ({"limits": {"memory": "2Gi", "nvidia.com/gpu": 1}}, "auto", None),
        (
            {"limits": {"memory": "2Gi", "nvidia.com/gpu": 1}, "deviceMemory": "80Gi"},
            "cuda",
            80 * GIB,
        ),
        ({"requests": {"memory": "2Gi"}}, "cpu", None),
        ({}, "auto", None),
    ],
)
def test_a_pod_offers_its_devices_memory_or_that_of_a_cpu_stage(resources, device, offered):
    assert offered_bytes(Resources.model_validate(resources), device) == offered


def test_overrides_become_devices_of_their_stages():
    asked = plan_request(
        deployed(
            "  resources: {deviceMemory: 80Gi}\n"
            "  stageOverrides: [{stages: [1], resources: {deviceMemory: 40Gi}, speedPercent: 50}]\n"
        )
    )
    assert asked.device_of(0) == Device(80 * GIB)
    assert asked.device_of(1) == Device(40 * GIB, 50)
