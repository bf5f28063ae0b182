"""What `stageline up` sends to the API server."""

import json

from stageline_cli.manifest_file import load_manifest
from stageline_cli.up import as_written
from support.up import write_manifest


def test_resource_is_what_its_author_wrote_and_can_be_applied_again(tmp_path):
    path, port = write_manifest(tmp_path, more=", maxModelLen: 9")
    sent = as_written(load_manifest(path))
    annotation = sent["metadata"].pop("annotations").popitem()
    assert sent == {
        "apiVersion": "stageline.dev/v1alpha1",
        "kind": "PipelineDeployment",
        "metadata": {"name": "tiny", "namespace": "default"},
        "spec": {
            "model": {"uri": "file:///nowhere", "dtype": "float32", "maxModelLen": 9},
            "pipeline": {"stages": 2, "device": "cpu"},
            "router": {"port": port},
        },
    }
    assert annotation[0] == "kubectl.kubernetes.io/last-applied-configuration"
    assert json.loads(annotation[1]) == sent


def test_metadata_of_the_author_is_kept(tmp_path):
    path, _ = write_manifest(tmp_path)
    named = "metadata: {name: tiny, namespace: models, annotations: {team: a}, labels: {b: c}}"
    path.write_text(path.read_text().replace("metadata: {name: tiny}", named))
    metadata = as_written(load_manifest(path))["metadata"]
    assert (metadata["namespace"], metadata["labels"]) == ("models", {"b": "c"})
    assert metadata["annotations"]["team"] == "a"
