"""What a stage and a router are told, and which pods Services and budgets select."""

import json

import pytest

from stageline_api.documents import StageDocument
from stageline_operator import names, render
from stageline_operator.observed import PipelineKey
from support.rendered import container, document, env, labels_of, rendered


def expanded(text, ip="10.0.0.7"):
    """As the kubelet does: $$ is a dollar, $(VAR) its value."""
    return text.replace("$$", "\0").replace("$(POD_IP)", ip).replace("\0", "$")


@pytest.mark.parametrize("folder", ["llama", "with/$(HOME)/$$", 'quote"-{}-\\', ""])
def test_a_stage_is_told_its_document(folder):
    made = rendered("{pipeline: {stages: 3}}", uri=f"pvc://models/{folder}")
    pod = made.stage(1, index=4)
    variables = container(pod, "worker")["env"]
    assert variables[0]["name"] == "POD_IP", "POD_IP must come before what it is put into"
    document = StageDocument.model_validate_json(
        expanded(env(container(pod, "worker"))["STAGELINE_DOCUMENT"])
    )
    assert document.listen == "10.0.0.7:7070"
    assert document.uri == f"file:///var/run/stageline/model/{folder}".rstrip("/")
    assert (document.model, document.stage, document.stages) == ("llama", 1, 3)
    assert document.pipeline == names.pipeline_name("llama", PipelineKey(made.record.revision, 4))
    assert document.revision == pod["metadata"]["labels"]["stageline.dev/revision"]
    host = f"{pod['spec']['hostname']}.{pod['spec']['subdomain']}.models.svc.cluster.local"
    assert document.addresses[1] == f"{host}:7070"
    assert pod["spec"]["hostname"] == pod["metadata"]["name"]
    assert pod["spec"]["subdomain"] == render.stages_service(made.resource)["metadata"]["name"]


def test_services_and_budgets_select_the_pods_they_are_for():
    made = rendered("{pipeline: {stages: 2}, router: {replicas: 2}}")
    router = made.router()["spec"]["template"]
    stage, other = made.stage(0, index=0), made.stage(0, index=1)
    service = render.router_service(made.resource, made.deployment)["spec"]["selector"]
    headless = render.stages_service(made.resource)["spec"]["selector"]
    budget = render.budget(made.resource, made.record, made.key().pipeline)["spec"]
    assert service.items() <= labels_of(router).items()
    assert not service.items() <= labels_of(stage).items()
    assert not service.items() <= labels_of(made.profile()).items()
    assert headless.items() <= labels_of(stage).items()
    assert not headless.items() <= labels_of(router).items()
    chosen = budget["selector"]["matchLabels"].items()
    assert chosen <= labels_of(stage).items()
    assert not chosen <= labels_of(other).items()
    assert budget["minAvailable"] == 1
    assert made.router()["spec"]["selector"]["matchLabels"].items() <= labels_of(router).items()
    routers = render.router_budget(made.resource, made.deployment)
    assert routers["spec"]["minAvailable"] == 1
    single = rendered()
    assert render.router_budget(single.resource, single.deployment) is None


def test_the_router_is_told_which_pipelines_are_kept():
    made = rendered("{batching: {maxBatchSize: 4}, router: {maxQueue: 9, port: 9000}}")
    kept = [PipelineKey("aaaaaaaaaa", 1), PipelineKey(made.record.revision, 0)]
    told = document(made, *kept)
    assert [pipeline.name for pipeline in told.pipelines] == [
        names.pipeline_name("llama", key) for key in kept
    ]
    assert told.pipelines[1].leader == json.loads(
        env(made.worker())["STAGELINE_DOCUMENT"]
    )["addresses"][0]  # fmt: skip
    assert (told.max_batch_size, told.max_queue, told.model) == (4, 9, "llama")
    router = container(made.router()["spec"]["template"], "router")
    assert told.listen == "0.0.0.0:9000", "kubectl port-forward calls a pod on its loopback"
    assert router["readinessProbe"]["grpc"] == {"port": 7072, "service": "router"}
    assert told.health == "0.0.0.0:7072", "probes speak no TLS"


def test_a_document_that_changes_is_told_by_its_hash_and_restarts_no_router():
    made = rendered()
    one, two = made.config(), made.config(made.key().pipeline)
    assert render.document_hash(one) != render.document_hash(two)
    assert render.document_hash(one) == render.document_hash(made.config())
    assert "annotations" not in made.router()["spec"]["template"]["metadata"] or (
        render.DOCUMENT_HASH not in made.router()["spec"]["template"]["metadata"]["annotations"]
    )
