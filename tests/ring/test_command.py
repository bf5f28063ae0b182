"""python -m stageline_worker, as a supervisor runs it."""

import base64
import os
import signal
import subprocess
import sys
import zlib
from contextlib import contextmanager
from pathlib import Path

import pytest

from stageline_api.profile import ModelProfile
from stageline_worker.last_words import LIMIT
from support import zoo
from support.pipeline import Pipeline, stage_documents

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def command(*arguments):
    return [sys.executable, "-m", "stageline_worker", *map(str, arguments)]


def worker(*arguments, **environment):
    env = {**ENVIRONMENT, **environment}
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=60, env=env, check=False
    )


@contextmanager
def running(*arguments, **environment):
    env = {**ENVIRONMENT, **environment}
    process = subprocess.Popen(command(*arguments), stderr=subprocess.PIPE, text=True, env=env)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def document(tmp_path):
    def write(checkpoint, **fields):
        (found,) = stage_documents(checkpoint, [zoo.LAYERS], **fields)
        path = tmp_path / "stage.json"
        path.write_text(found.model_dump_json())
        return path, found

    return write


def test_no_thread_takes_the_signal_that_ends_a_stage(document):
    """With more than one thread, numpy's BLAS starts them when it is imported."""
    path, found = document(zoo.checkpoint("llama"))
    with running("stage", "--document", path, OMP_NUM_THREADS="2") as process:
        Pipeline([found]).wait_ready(60)
        blocked = [
            int(line.split()[1], 16)
            for status in Path(f"/proc/{process.pid}/task").glob("*/status")
            for line in status.read_text().splitlines() if line.startswith("SigBlk:")
        ]  # fmt: skip
        ending = 1 << (signal.SIGTERM - 1)
        assert all(mask & ending for mask in blocked), "a thread would lose it"
        process.terminate()
        assert process.wait(20) == 0


@pytest.mark.parametrize("given", ["path", "environment"])
def test_a_stage_serves_and_ends_with_0_on_sigterm(document, given):
    path, found = document(zoo.checkpoint("llama"))
    how = ["--document", path] if given == "path" else []
    text = {} if given == "path" else {"STAGELINE_DOCUMENT": path.read_text()}
    with running("stage", *how, **text) as process:
        pipeline = Pipeline([found])
        pipeline.wait_ready(60)
        with pipeline.router() as router:
            router.generate(1, [5, 6, 7], max_tokens=3, ignore_eos=True)
            assert len(router.tokens_of(1)) == 3
        process.terminate()
        _, log = process.communicate(timeout=20)
    assert process.returncode == 0
    events = [line.split()[1] for line in log.splitlines()]
    assert events[0] == "started"
    assert "session_ready" in events


def test_a_model_that_cannot_be_loaded_is_one_line_and_1(document, tmp_path):
    path, _ = document(tmp_path / "nothing-here")
    said = tmp_path / "termination-log"
    done = worker("stage", "--document", path, STAGELINE_TERMINATION_LOG=str(said))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "cannot load its layers" in line]
    assert "stage 0 cannot load its layers" in line
    assert "nothing-here" in line
    assert said.read_text() in line
    assert said.read_text().startswith("stage 0 cannot load its layers: ")


@pytest.mark.parametrize("text", [None, "{", "{}", '{"stage": 0}'])
def test_a_document_that_cannot_be_read_is_one_line_and_1(tmp_path, text):
    path = tmp_path / "stage.json"
    if text is not None:
        path.write_text(text)
    said = tmp_path / "termination-log"
    done = worker("stage", "--document", path, "--termination-log", said)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "is no stage document" in done.stderr
    assert said.read_text() == done.stderr.strip()


def test_no_document_at_all_is_one_line_that_says_where_it_may_be(tmp_path):
    done = worker("stage")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert "--document" in done.stderr
    assert "STAGELINE_DOCUMENT" in done.stderr
    done = worker("stage", STAGELINE_DOCUMENT="{}")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert done.stderr.startswith("STAGELINE_DOCUMENT is no stage document: ")


@pytest.mark.parametrize("grace", ["-1", "soon", "inf"])
def test_a_grace_that_is_no_time_is_refused(document, grace):
    path, _ = document(zoo.checkpoint("llama"))
    done = worker("stage", "--document", path, "--grace", grace)
    assert done.returncode == 2
    assert grace in done.stderr.splitlines()[-1]


def test_profile_prints_the_models_profile(document, tmp_path):
    said = tmp_path / "termination-log"
    uri = f"file://{zoo.checkpoint('llama')}"
    done = worker("profile", uri, "--termination-log", said)
    assert done.returncode == 0, done.stderr
    found = ModelProfile.model_validate_json(done.stdout)
    assert found.layers == zoo.LAYERS
    unpacked = zlib.decompress(base64.b64decode(said.read_bytes(), validate=True))
    assert ModelProfile.model_validate_json(unpacked) == found


def test_a_profile_of_nothing_is_one_line_and_1(tmp_path):
    said = tmp_path / "termination-log"
    done = worker("profile", f"file://{tmp_path}/nothing", "--termination-log", said)
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert said.read_text() == done.stderr.strip()


def test_a_termination_message_is_cut_where_kubernetes_cuts_it(tmp_path):
    said = tmp_path / "termination-log"
    done = worker("profile", "file:///x" + "é" * 3000, "--termination-log", said)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert LIMIT - 1 <= len(said.read_bytes()) <= LIMIT
    assert done.stderr.startswith(said.read_text())


def test_a_termination_log_that_cannot_be_written_hides_no_failure(tmp_path):
    done = worker("profile", f"file://{tmp_path}/nothing", "--termination-log", tmp_path)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
