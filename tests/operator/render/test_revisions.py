"""What is another when the spec is: the profile pod, and the revision."""

import json

import pytest

from stageline_operator import render
from stageline_operator.observed import RevisionRecord
from support.rendered import env, rendered


def test_a_pod_of_an_old_revision_is_made_from_its_record():
    old, new = rendered("{pipeline: {stages: 2}}"), rendered("{pipeline: {stages: 3}}")
    record = RevisionRecord.model_validate_json(
        json.dumps(render.revision_object(old.resource, old.record)["data"])
    )
    assert record == old.record
    again = render.stage_pod(new.resource, record, old.key(1), new.settings)
    assert again == old.stage(1)


def test_a_profile_pod_is_another_when_what_it_reads_or_runs_on_is():
    made = rendered("{replicas: 1}")
    name = made.profile()["metadata"]["name"]
    assert rendered("{replicas: 2, pipeline: {stages: 2}}").profile()["metadata"]["name"] == name
    for spec, uri in [
        ("{}", "pvc://checkpoints/other"),
        ("{model: {secretName: token}}", "pvc://checkpoints/llama"),
        ("{nodeSelector: {a: b}}", "pvc://checkpoints/llama"),
        ("{podTemplate: {spec: {imagePullSecrets: [{name: x}]}}}", "pvc://checkpoints/llama"),
        ("{image: 'worker:2'}", "pvc://checkpoints/llama"),
    ]:
        assert rendered(spec, uri=uri).profile()["metadata"]["name"] != name, spec


@pytest.mark.parametrize(
    ("spec", "same"),
    [
        ("{replicas: 5}", True),
        ("{nodeSelector: {a: b}}", True),
        ("{image: 'worker:2'}", True),
        ("{model: {secretName: token}}", False),
        ("{model: {dtype: float16}}", True),
    ],
)
def test_a_profile_stays_true_while_the_model_is_the_same(spec, same):
    subject = render.profile_subject(rendered().deployment)
    assert (render.profile_subject(rendered(spec).deployment) == subject) == same


def test_a_profile_pod_has_what_it_takes_to_start_and_nothing_that_outlives_it():
    made = rendered("""
        podTemplate:
          spec:
            imagePullSecrets: [{name: registry}]
            initContainers: [{name: warm, image: i}]
            containers:
            - {name: worker, env: [{name: HF_ENDPOINT, value: "http://mirror"}], lifecycle: {}}
            - {name: sidecar, image: i}
    """)
    profile = made.profile()["spec"]
    assert [each["name"] for each in profile["containers"]] == ["profile"]
    assert env(profile["containers"][0])["HF_ENDPOINT"] == "http://mirror"
    assert profile["imagePullSecrets"] == [{"name": "registry"}]
    assert "initContainers" not in profile
    assert {each["name"] for each in made.stage()["spec"]["containers"]} == {"worker", "sidecar"}


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("{}", "{replicas: 3}", True),
        ("{}", "{rollout: {maxSurge: 2}}", True),
        ("{}", "{batching: {maxDelay: 5ms}}", True),
        ("{}", "{router: {replicas: 3, port: 9000, image: 'r:2'}}", True),
        ("{pipeline: {stages: 2}}", "{pipeline: {partition: [3, 3]}}", True),
        ("{pipeline: {stages: 2}}",
         "{pipeline: {stages: 2}, stageOverrides: [{stages: [1], speedPercent: 101}]}", False),
        ("{}", "{router: {maxQueue: 3}}", False),
        ("{}", "{image: 'worker:2'}", False),
        ("{}", "{nodeSelector: {a: b}}", False),
        ("{}", "{tolerations: [{key: a, operator: Exists}]}", False),
        ("{}", "{podTemplate: {metadata: {labels: {a: b}}}}", False),
        ("{}", "{model: {secretName: token}}", False),
        ("{}", "{resources: {requests: {cpu: 1}}}", False),
        ("{}", "{generation: {maxSequences: 3}}", False),
    ],
)  # fmt: skip
def test_a_revision_is_another_only_when_stages_must_be_started_anew(old, new, same):
    assert (rendered(old).record.revision == rendered(new).record.revision) == same


def test_tls_is_part_of_the_revision_and_the_front_door_is_not():
    assert rendered().record.revision != rendered("{security: {tls: Disabled}}").record.revision
    front = "{router: {tls: {secretName: a}, auth: {tokenSecretName: b}}}"
    assert rendered().record.revision == rendered(front).record.revision
