"""Manifests: what is read, and what each mistake is answered with."""

import json
import time
from pathlib import PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stageline_api.manifest import ManifestError, read_manifest, resolve_model

FULL = """\
apiVersion: stageline.dev/v1alpha1
kind: PipelineDeployment
metadata: {name: llama, uid: 0b7e, creationTimestamp: 2026-01-01T00:00:00Z, labels: }
spec:
  model:
    uri: hf://meta-llama/Llama-3.1-70B-Instruct@main
    dtype: bfloat16
    maxModelLen: 8192
  pipeline:
    stages: 4
    partition: [18, 21, 21, 20]
    transport: auto
  replicas: 2
  resources: {limits: {nvidia.com/gpu: 1}, deviceMemory: 80Gi}
  stageOverrides:
    - stages: [3]
      nodeSelector: {gpu: a100-80g}
      resources: {limits: {memory: 1.5Gi}, deviceMemory: 40Gi}
"""
HEAD = "apiVersion: stageline.dev/v1alpha1\nkind: PipelineDeployment\nmetadata: {name: llama}\n"
MODEL = "  model: {uri: 'file:///m'}\n"


def problems(text):
    with pytest.raises(ManifestError) as refused:
        read_manifest(text, "llama.yaml")
    return list(refused.value.problems)


def test_the_manifest_of_the_readme_is_read():
    deployment = read_manifest(FULL, "llama.yaml")
    spec = deployment.spec
    assert deployment.metadata.name == "llama"
    assert (spec.model.dtype, spec.model.max_model_len) == ("bfloat16", 8192)
    assert spec.pipeline.partition == (18, 21, 21, 20)
    assert spec.resources.limits == {"nvidia.com/gpu": "1"}
    assert spec.resources_of(0) == spec.resources
    assert spec.resources_of(3).limits == {"nvidia.com/gpu": "1", "memory": "1.5Gi"}
    assert spec.resources_of(3).device_memory == "40Gi"


def test_what_is_left_out_has_the_documented_defaults():
    spec = read_manifest(f"{HEAD}spec:\n{MODEL}", "llama.yaml").spec
    assert (spec.replicas, spec.model.dtype, spec.model.max_model_len) == (1, "auto", None)
    assert (spec.pipeline.stages, spec.pipeline.transport, spec.pipeline.device) == (
        None, "auto", "auto",
    )  # fmt: skip
    assert (spec.batching.max_batch_size, spec.batching.max_delay) == (32, "2ms")
    assert (spec.generation.max_sequences, spec.generation.prefill_chunk) == (16, 512)
    assert (spec.router.port, spec.router.max_queue) == (8001, 1024)


def test_what_is_read_can_be_written_and_read_again():
    deployment = read_manifest(FULL, "llama.yaml")
    written = deployment.model_dump_json(exclude_defaults=True)
    head = '{"apiVersion": "stageline.dev/v1alpha1", "kind": "PipelineDeployment", '
    assert '"maxModelLen":8192' in written, "fields are camelCase outside"
    assert read_manifest(head + written[1:], "again") == deployment


def test_a_relative_model_is_taken_from_the_folder_of_the_manifest():
    text = f"{HEAD}spec: {{model: {{uri: 'file://./tiny'}}}}\n"
    deployment = resolve_model(read_manifest(text, "m"), PurePosixPath("/srv/it"))
    assert deployment.spec.model.uri == "file:///srv/it/tiny"


SPEC_MISTAKES = [
    (
        "  pipline: {stages: 4}",
        "spec.pipline is not a field of PipelineDeployment: did you mean spec.pipeline?",
    ),
    (
        "  pipeline: {max_stages: 4}",
        "spec.pipeline.max_stages is not a field of PipelineDeployment: "
        "did you mean spec.pipeline.stages?",
    ),
    (
        "  xyzzy: 1",
        "spec.xyzzy is not a field of PipelineDeployment: spec has model, pipeline, replicas, "
        "resources, image, nodeSelector, tolerations, topologySpreadConstraints, podTemplate, "
        "stageOverrides, batching, generation, router, security, rollout",
    ),
    (
        "  stageOverrides: [{stages: [0], nodeSelektor: {}}]",
        "spec.stageOverrides[0].nodeSelektor is not a field of PipelineDeployment: "
        "did you mean spec.stageOverrides[0].nodeSelector?",
    ),
    ("  pipeline: {stages: 0}", "spec.pipeline.stages must be at least 1, not 0"),
    ("  pipeline: {stages: 4.0}", "spec.pipeline.stages must be a whole number, not 4.0"),
    ("  pipeline: {stages: '4'}", "spec.pipeline.stages must be a whole number, not '4'"),
    ("  pipeline: {stages: true}", "spec.pipeline.stages must be a whole number, not true"),
    ("  pipeline: {stages: 9999999}", "spec.pipeline.stages must be at most 256, not 9999999"),
    ("  pipeline: 4", "spec.pipeline must be a mapping of fields, not 4"),
    ("  pipeline:", "spec.pipeline is empty: give it a mapping of fields, or leave it out"),
    ("  pipeline: {partition: [3, 0]}", "spec.pipeline.partition[1] must be at least 1, not 0"),
    ("  pipeline: {partition: 3}", "spec.pipeline.partition must be a list, not 3"),
    (
        "  pipeline: {partition: []}",
        "spec.pipeline.partition is an empty list: give it entries, or leave it out",
    ),
    (
        "  pipeline: {stages: 3, partition: [1, 2]}",
        "spec.pipeline.partition [1, 2] has 2 stages but spec.pipeline.stages is 3: "
        "leave one of the two out, or make them agree",
    ),
    (
        "  pipeline: {transport: nccl}",
        "spec.pipeline.transport must be auto, collective, socket or grpc, not 'nccl'",
    ),
    (
        "  pipeline: {device: gpu}",
        "spec.pipeline.device must be auto, cpu or cuda, not 'gpu'",
    ),
    (
        "  stageOverrides: [{stages: [0, 1]}, {stages: [1]}]",
        "spec.stageOverrides names stage 1 more than once: "
        "put all that is different for it into one entry",
    ),
    (
        "  pipeline: {stages: 2}\n  stageOverrides: [{stages: [2]}]",
        "spec.stageOverrides names stage 2 but the pipeline has 2 stages, 0 to 1: "
        "use one of these, or raise spec.pipeline.stages",
    ),
    (
        "  stageOverrides: [{stages: [-1]}]",
        "spec.stageOverrides[0].stages[0] must be at least 0, not -1",
    ),
    ("  replicas: -1", "spec.replicas must be at least 0, not -1"),
    ("  router: {port: 70000}", "spec.router.port must be at most 65535, not 70000"),
    (
        "  resources: {deviceMemory: 80GB}",
        "spec.resources.deviceMemory is not a Kubernetes quantity: '80GB'; write a number and "
        "a unit, for example 80Gi, 1.5G or 500m",
    ),
    (
        "  batching: {maxDelay: 2}",
        "spec.batching.maxDelay is not a duration: '2'; write a number and a unit, "
        "for example 2ms, 1.5s or 1m30s",
    ),
]


@pytest.mark.parametrize(("mistake", "sentence"), SPEC_MISTAKES)
def test_a_mistake_in_the_spec_is_answered_with_a_sentence_and_its_line(mistake, sentence):
    found = problems(f"{HEAD}spec:\n{MODEL}{mistake}\n")
    assert [problem.split(": ", 1)[1] for problem in found] == [sentence]


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ("{}", "5: spec.model.uri is missing: where the checkpoint is: hf://owner/model"),
        ("{uri: llama}", "5: spec.model.uri has no scheme: 'llama'; write where"),
        ("{uri: 7}", "5: spec.model.uri must be text, not 7: put it in quotes"),
        (
            "{uri: 'hf://a/b', dtype: bf16}",
            "5: spec.model.dtype must be auto, float32, bfloat16 or float16, not 'bf16'",
        ),
        (
            "{uri: 'hf://a/b', max_model_len: 5}",
            "5: spec.model.max_model_len is not a field of PipelineDeployment: "
            "did you mean spec.model.maxModelLen?",
        ),
    ],
)
def test_a_mistake_about_the_model_is_answered_with_a_sentence(model, sentence):
    (found,) = problems(f"{HEAD}spec:\n  model: {model}\n")
    assert found.startswith(f"llama.yaml:{sentence}")


@pytest.mark.parametrize(
    ("model", "more", "sentence"),
    [
        (
            "",
            "  pipeline: {device: cuda}\n",
            "spec.model.weightDtype float16 is for stages on CPUs, but this deployment asks for "
            "accelerators: leave it out, and make spec.model.dtype float16 or bfloat16",
        ),
        (
            "",
            "  stageOverrides: [{stages: [1], resources: {limits: {nvidia.com/gpu: 1}}}]\n",
            "spec.model.weightDtype float16 is for stages on CPUs, but this deployment asks for "
            "accelerators: leave it out, and make spec.model.dtype float16 or bfloat16",
        ),
        (
            ", dtype: bfloat16",
            "",
            "spec.model.weightDtype float16 is for stages that compute in float32, but "
            "spec.model.dtype is bfloat16: make that float32, or leave spec.model.weightDtype out",
        ),
    ],
)
def test_halved_weights_are_for_float32_on_cpus(model, more, sentence):
    halved = f"spec:\n  model: {{uri: 'hf://a/b', weightDtype: float16{model}}}\n"
    found = problems(f"{HEAD}{halved}{more}")
    assert [problem.split(": ", 1)[1] for problem in found] == [sentence]
    read_manifest(f"{HEAD}{halved}".replace(model, ""), "llama.yaml")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "llama.yaml is empty: write a PipelineDeployment into it"),
        ("---\n---\n", "llama.yaml is empty: write a PipelineDeployment into it"),
        ("just words", "llama.yaml must be a PipelineDeployment, not 'just words'"),
        ("[1]", "llama.yaml must be a PipelineDeployment, not a list"),
        ("kind: Pod", "llama.yaml: kind must be PipelineDeployment, not 'Pod'"),
        ("spec: {}", "llama.yaml: kind must be PipelineDeployment, not nothing"),
        (
            "kind: PipelineDeployment\napiVersion: stageline.dev/v1",
            "llama.yaml: apiVersion must be stageline.dev/v1alpha1, not 'stageline.dev/v1'",
        ),
        (
            f"{FULL}---\n{FULL}",
            "llama.yaml:20: a second document starts here: put one PipelineDeployment in a file",
        ),
        (f"{HEAD}kind: Pod\n", "llama.yaml:4: 'kind' stands here a second time"),
        ("a: b: c", "llama.yaml:1: this is not YAML: mapping values are not allowed here"),
        ("a:\n\t- b", "llama.yaml:2: this is not YAML: "),
        ("a: \x07", "llama.yaml is not YAML: "),
        ("a: !!python/object:os.system {}", "llama.yaml:1: could not determine a constructor"),
        ("a: *nothing", "llama.yaml:1: this is not YAML: found undefined alias"),
        ("a: 2026-13-45", "llama.yaml has a value that cannot be read: "),
        ("[" * 100_000, "llama.yaml is nested too deeply to be a manifest"),
        ("a: " + "x" * 2**20, "llama.yaml is larger than a manifest may be"),
    ],
)
def test_a_text_that_is_no_manifest_is_answered_with_a_sentence(text, sentence):
    (found,) = problems(text)
    assert found.startswith(sentence)


def test_several_mistakes_are_told_together_in_the_order_of_their_lines():
    text = f"{HEAD}spec:\n  pipline: {{}}\n{MODEL}  replicas: two\n  router: {{port: 0}}\n"
    assert [problem.split(": ")[0] for problem in problems(text)] == [
        "llama.yaml:5", "llama.yaml:7", "llama.yaml:8",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "name", ["Llama", "llama_1", "-llama", "llama.a", "a" * 64, "", "lla ma", "x\n", "../x"]
)
def test_a_name_that_is_no_label_is_refused(name):
    (found,) = problems(f"{HEAD.replace('llama', json.dumps(name))}spec:\n{MODEL}")
    assert "metadata.name must be lower case letters, digits and '-'" in found


def test_a_label_that_yaml_reads_as_a_number_is_to_be_quoted():
    text = f"{HEAD.replace('name: llama', 'name: llama, labels: {v: 1}')}spec:\n{MODEL}"
    assert problems(text) == [
        "llama.yaml:3: metadata.labels.v must be text, not 1: put it in quotes"
    ]


@pytest.mark.parametrize("key", ["x" * 100_000, "a\nb", "\x1b[31m"])
def test_a_name_that_would_break_the_sentence_is_shown_short_and_escaped(key):
    (found,) = problems(f"{HEAD}spec:\n{MODEL}  {json.dumps(key)}: 1\n")
    assert found.isprintable(), found
    assert len(found) < 400, found


def test_a_label_whose_name_yaml_reads_as_a_number_is_to_be_quoted():
    text = f"{HEAD.replace('name: llama', 'name: llama, labels: {1: v}')}spec:\n{MODEL}"
    assert problems(text) == [
        "llama.yaml:3: a name in metadata.labels must be text, not 1: put it in quotes"
    ]


def test_aliases_that_multiply_cost_nothing():
    rows = ["a0: &a0 [x]"] + [
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)
    ]
    text = f"{HEAD}spec:\n{MODEL}  pipeline: {{partition: *a29}}\n"
    started = time.process_time()
    found = problems("\n".join(rows) + "\n" + text)
    assert time.process_time() - started < 2, "reading must not unfold what aliases stand for"
    assert any("spec.pipeline.partition[0] must be a whole number, not a list" in p for p in found)


@settings(max_examples=200)
@given(st.text(alphabet=st.sampled_from(list("ab:{}[]-&*!|>'\"\n\t #0.~\\%@,?")), max_size=40))
def test_no_text_at_all_makes_the_reader_fail_in_another_way(noise):
    with pytest.raises(ManifestError):
        read_manifest(noise, "noise")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=5), inside),
    max_leaves=6,
)
FIELDS = st.sampled_from(
    ["model", "pipeline", "replicas", "resources", "stageOverrides", "batching", "router"]
)


@settings(max_examples=100)
@given(FIELDS, JSON)
def test_any_value_anywhere_is_read_or_answered_with_sentences(field, value):
    text = json.dumps(
        {
            "apiVersion": "stageline.dev/v1alpha1",
            "kind": "PipelineDeployment",
            "metadata": {"name": "llama"},
            "spec": {"model": {"uri": "hf://a/b"}} | {field: value},
        }
    )
    problems = ()
    try:
        read_manifest(text, "m")
    except ManifestError as refused:  # anything else that is raised is a failure
        problems = refused.problems or ("nothing is said",)
    for problem in problems:
        assert problem.startswith("m:1: "), f"it does not say where: {problem}"
        assert f"spec.{field}" in problem, f"it does not say what: {problem}"
