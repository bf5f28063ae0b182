"""python -m stageline_worker, as a supervisor runs it."""

import os
import subprocess
import sys

import pytest

from support import zoo
from support.pipeline import Pipeline, stage_documents

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def worker(*arguments, **options):
    command = [sys.executable, "-m", "stageline_worker", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, env=ENVIRONMENT, check=False, **options
    )


@pytest.fixture
def document(tmp_path):
    def write(checkpoint, **fields):
        (found,) = stage_documents(checkpoint, [zoo.LAYERS], **fields)
        path = tmp_path / "stage.json"
        path.write_text(found.model_dump_json())
        return path, found

    return write


def test_a_stage_serves_and_ends_with_0_on_sigterm(document):
    path, found = document(zoo.checkpoint("llama"))
    command = [sys.executable, "-m", "stageline_worker", "stage", "--document", str(path)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    try:
        pipeline = Pipeline([found])
        pipeline.wait_ready(60)
        with pipeline.router() as router:
            router.generate(1, [5, 6, 7], max_tokens=3, ignore_eos=True)
            assert len(router.tokens_of(1)) == 3
        process.terminate()
        _, log = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    events = [line.split()[1] for line in log.splitlines()]
    assert events[0] == "started"
    assert "session_ready" in events


def test_a_model_that_cannot_be_loaded_is_one_line_and_1(document, tmp_path):
    path, _ = document(tmp_path / "nothing-here")
    done = worker("stage", "--document", path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "cannot load its layers" in line]
    assert "stage 0 cannot load its layers" in line
    assert "nothing-here" in line


@pytest.mark.parametrize("text", [None, "{", "{}", '{"stage": 0}'])
def test_a_document_that_cannot_be_read_is_one_line_and_1(tmp_path, text):
    path = tmp_path / "stage.json"
    if text is not None:
        path.write_text(text)
    done = worker("stage", "--document", path)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "is no stage document" in done.stderr


def test_profile_prints_the_models_profile(document):
    done = worker("profile", f"file://{zoo.checkpoint('llama')}")
    assert done.returncode == 0, done.stderr
    from stageline_api.profile import ModelProfile

    assert ModelProfile.model_validate_json(done.stdout).layers == zoo.LAYERS


def test_a_profile_of_nothing_is_one_line_and_1(tmp_path):
    done = worker("profile", f"file://{tmp_path}/nothing")
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1, done.stderr
