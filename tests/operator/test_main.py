"""The operator as a process: how it starts, waits, answers probes and stops."""

import asyncio
import contextlib
import json
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from stageline_api.crd import crd
from stageline_local.apiserver import served
from stageline_local.apiserver.faults import refuse
from stageline_local.client import Client
from stageline_operator import logs
from stageline_operator.health import complaints
from stageline_operator.kinds import PIPELINE_DEPLOYMENT
from stageline_operator.metrics import Metrics
from stageline_operator.settings import OperatorSettings, RenderSettings, parse
from support.kube import free_port, one_of
from support.processes import until, written

STOPS_IN_SECONDS = 3.0
"""0.1 to 0.3 s when the machine is at rest; kopf left alone takes 5 s and more."""
STARTS_IN_SECONDS = 60.0


def resource(name="llama"):
    return {
        "apiVersion": "stageline.dev/v1alpha1", "kind": "PipelineDeployment",
        "metadata": {"name": name},
        "spec": {"model": {"uri": "hf://a/b"}, "pipeline": {"stages": 2}},
    }  # fmt: skip


class Process:
    """The operator, started with these flags; its log is in `log`."""

    def __init__(self, folder, *flags):
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-X", "dev", "-m", "stageline_operator", *flags],
                stdout=log, stderr=log,
            )  # fmt: skip

    def text(self):
        return self.log.read_text()

    async def says(self, text, seconds=STARTS_IN_SECONDS):
        def said():
            assert self._process.poll() is None, f"it has ended:\n{self.text()}"
            return written(self.log, text)

        await until(said, seconds, f"{text!r} in the log")

    async def answers(self, port, path, status):
        def answered():
            assert self._process.poll() is None, f"it has ended:\n{self.text()}"
            answer = get(port, path)
            return answer is not None and answer[0] == status

        await until(answered, STARTS_IN_SECONDS, f"{path} answers {status}")

    def send(self, number):
        self._process.send_signal(number)

    async def ended(self, seconds):
        """Its exit code; it must end in time."""
        await until(lambda: self._process.poll() is not None, seconds, "the operator's end")
        return self._process.returncode

    def kill(self):
        self._process.kill()
        self._process.wait()


@pytest.fixture
def start(tmp_path):
    with contextlib.ExitStack() as ends:

        def start(*flags, folder=tmp_path):
            folder.mkdir(exist_ok=True)
            process = Process(folder, *flags)
            ends.callback(process.kill)
            return process

        yield start


@pytest.fixture
def server():
    with served() as server:
        yield server


def get(port, path):
    """Status and text of an answer, None while there is none."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_serves_answers_probes_and_stops_at_once(start, server, number):
    port = free_port()
    operator = start(f"--server={server.url}", f"--health-port={port}", "--health-host=127.0.0.1")
    await operator.answers(port, "/readyz", 200)
    assert get(port, "/healthz") == (200, "ok\n")
    path = "/apis/stageline.dev/v1alpha1/namespaces/default/pipelinedeployments"
    await asyncio.to_thread(_post, server.url + path, resource())
    await operator.says("default/llama")
    metrics = get(port, "/metrics")[1]
    assert 'stageline_api_requests_total{code="201",kind="pods",verb="POST"} 1.0' in metrics
    assert "stageline_resources 1.0" in metrics
    assert re.search(r'stageline_reconcile_total\{result="done"\} [1-9]', metrics)
    assert re.search(r"stageline_reconcile_duration_seconds_count [1-9]", metrics)
    assert "stageline_reconcile_errors_total 0.0" in metrics
    assert re.search(r"stageline_queue_depth \d", metrics)
    began = time.monotonic()
    operator.send(number)
    operator.send(number)
    assert await operator.ended(5) == 0
    assert time.monotonic() - began < STOPS_IN_SECONDS
    text = operator.text()
    assert "stopped" in text
    for noise in ("Traceback", "destroyed", "never", "Unclosed", "Warning"):
        assert noise not in text, text


def _post(url, body):
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=5):
        pass


async def test_a_second_operator_stands_by_until_the_first_has_ended(start, server, tmp_path):
    ports = free_port(), free_port()
    first, second = (
        start(
            f"--server={server.url}", f"--health-port={port}", "--health-host=127.0.0.1",
            folder=tmp_path / str(port),
        )
        for port in ports
    )  # fmt: skip

    def ready(port):
        return (get(port, "/readyz") or (0, ""))[0] == 200

    await until(lambda: any(map(ready, ports)), 60)
    if not ready(ports[0]):
        first, second, ports = second, first, ports[::-1]
    await second.says("standing by: ")
    status, text = get(ports[1], "/readyz")
    assert status == 503
    assert "holds the Lease stageline-operator-cluster in namespace default, and one" in text
    assert get(ports[1], "/healthz")[0] == 200, "it would be restarted for nothing"
    first.send(signal.SIGTERM)
    await second.answers(ports[1], "/readyz", 200)
    second.send(signal.SIGTERM)
    assert await second.ended(STOPS_IN_SECONDS) == 0


@pytest.fixture(params=["double", "real"])
def either(request, tmp_path):
    (tmp_path / "server").mkdir()
    with one_of(request, alone=tmp_path / "server") as server:
        yield server


async def test_two_releases_are_told_by_the_resource_and_one_that_is_killed_is_forgotten(
    start, either, tmp_path
):
    way = [f"--server={either.url}", "--health-host=127.0.0.1"]
    if either.token:
        (tmp_path / "token").write_text(either.token)
        way += [f"--token-file={tmp_path / 'token'}", f"--ca-file={either.ca_file}"]
    port, folder = free_port(), PIPELINE_DEPLOYMENT.path("default")
    async with Client(either.url, token=either.token, ca_file=either.ca_file or None) as client:
        if either.token:
            await client.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd())
        first = start(*way, f"--health-port={port}", "--release=web/a", folder=tmp_path / "a")
        await first.answers(port, "/readyz", 200)
        await client.create(folder, resource())
        second = start(*way, "--health-port=0", "--release=web/b", folder=tmp_path / "b")

        async def told():
            found = await client.get(f"{folder}/llama")
            conditions = (found.get("status") or {}).get("conditions") or []
            return [c["message"] for c in conditions if c["type"] == "OperatorConflict"]

        await second.says("standing by: ")
        await eventually(told, 30)
        (words,) = await told()
        assert words.startswith("the operator of release web/b wants to serve this namespace too")
        second.kill()
        await eventually(lambda: is_empty(told), 60)
        assert first.text().count("Traceback") == 0


async def is_empty(told):
    return not await told()


async def eventually(condition, seconds):
    """Wait for an async condition."""
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, f"not so after {seconds} s"
        await asyncio.sleep(0.1)


async def test_an_api_server_that_is_not_there_is_waited_for_and_said_once(start):
    port, health = free_port(), free_port()
    operator = start(
        f"--server=http://127.0.0.1:{port}", f"--health-port={health}", "--health-host=127.0.0.1"
    )
    await operator.says("no answer from the API server")
    assert get(health, "/healthz")[0] == 200, "a restart would not help"
    assert get(health, "/readyz") == (503, "not everything has been listed yet\n")
    await asyncio.sleep(1)
    assert operator.text().count("no answer from the API server") == 1
    with served(port=port):
        await operator.answers(health, "/readyz", 200)
        operator.send(signal.SIGTERM)
        assert await operator.ended(5) == 0


async def test_it_can_be_stopped_while_it_waits(start):
    operator = start(f"--server=http://127.0.0.1:{free_port()}", "--health-port=0")
    await operator.says("waiting")
    operator.send(signal.SIGTERM)
    assert await operator.ended(STOPS_IN_SECONDS + 1) == 0


async def test_a_missing_crd_is_said_in_a_sentence_and_waited_for(start):
    with served(crds=()) as server:
        operator = start(f"--server={server.url}", "--health-port=0")
        await operator.says("install its CustomResourceDefinition")
        assert "Traceback" not in operator.text()


async def test_an_api_server_that_cannot_be_watched_ends_it_with_a_sentence(start, server):
    server.faults.append(refuse(lambda request: request.path == "/apis", 415, "No", "not here"))
    operator = start(f"--server={server.url}", "--health-port=0")
    assert await operator.ended(STARTS_IN_SECONDS) == 1
    assert "the API server cannot be watched" in operator.text()
    assert "Traceback" not in operator.text().rpartition("cannot be watched")[2]


async def test_a_port_that_is_taken_is_said(start, server):
    port = int(server.url.rpartition(":")[2])
    operator = start(f"--server={server.url}", f"--health-port={port}", "--health-host=127.0.0.1")
    assert await operator.ended(STARTS_IN_SECONDS) == 1
    assert "address already in use" in operator.text()
    assert "Traceback" not in operator.text()


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--workers", "many"], "invalid int value: 'many'"),
        (["--workers", "0"], "--workers 0 must be from 1 to 256"),
        (["--health-port", "70000"], "--health-port 70000 must be from 0 to 65535"),
        (["--namespace", "No_Such"], "'No_Such' can be no namespace"),
        (["--server", "localhost"], "must begin with http:// or https://"),
        (["--token-file", "/no/such"], "belong to --server"),
        (["--server", "http://a", "--token-file", "/no/such"], "--token-file /no/such is no file"),
        (["--server", "http://a", "--kubeconfig", "/b"], "give one of them"),
        (["--log-format", "xml"], "invalid choice"),
        (["--allow-host-path", "maybe"], "'maybe' is neither true nor false"),
        (["--release", "stageline"], "--release 'stageline' must be the namespace and the name"),
        (["--wrokers", "3"], "unrecognized arguments"),
    ],
)
def test_bad_flags_are_refused_with_a_sentence(capsys, flags, sentence):
    with pytest.raises(SystemExit) as ended:
        parse(flags, {})
    assert ended.value.code == 2
    assert sentence in capsys.readouterr().err


def test_bad_environment_is_refused_as_flags_are(capsys):
    with pytest.raises(SystemExit):
        parse([], {"STAGELINE_WORKERS": "many"})
    assert "invalid int value: 'many'" in capsys.readouterr().err


def test_settings_come_from_flags_before_environment_before_defaults():
    environ = {
        "STAGELINE_WORKER_IMAGE": "w:1", "STAGELINE_ROUTER_IMAGE": "r:1",
        "STAGELINE_NAMESPACES": "a, b", "STAGELINE_ALLOW_HOST_PATH": "true",
        "STAGELINE_HEALTH_PORT": "0",
    }  # fmt: skip
    told = parse(["--worker-image", "w:2", "--workers=3"], environ)
    assert told.render == RenderSettings("w:2", "r:1", "cluster.local", allow_host_path=True)
    assert (told.namespaces, told.workers, told.health_port) == (("a", "b"), 3, 0)
    assert parse(["--namespace", "c", "--namespace", "d"], environ).namespaces == ("c", "d")
    assert parse([], {}) == OperatorSettings()


def test_help_names_every_flag(capsys):
    with pytest.raises(SystemExit) as ended:
        parse(["--help"], {})
    told = capsys.readouterr().out
    assert ended.value.code == 0
    flags = (
        "--namespace", "--worker-image", "--router-image", "--cluster-domain", "--server",
        "--allow-host-path", "--token-file", "--ca-file", "--kubeconfig", "--workers",
        "--health-port", "--log-format", "--log-level", "--release",
    )  # fmt: skip
    for flag in flags:
        assert flag in told


@pytest.mark.parametrize(
    ("alive", "longest", "silent", "sentence"),
    [
        (True, 0.0, None, None),
        (True, 299.0, ("pods", 119.0), None),
        (False, 0.0, None, "a reconcile worker has ended"),
        (True, 301.0, None, "one reconcile has taken 301 s"),
        (True, 0.0, ("pods", 121.0), "the watch of pods has been silent for 121 s"),
    ],
)
def test_unhealthy_is_what_only_a_restart_mends(alive, longest, silent, sentence):
    found = complaints(alive, longest, silent)
    assert found == [] if sentence is None else found[0].startswith(sentence)


def test_unhealthy_is_who_does_not_watch_any_more():
    assert complaints(True, 0.0, None, ["watches"]) == ["what keeps the watches has ended"]


def test_log_lines_carry_the_key_of_their_resource():
    record = _record("made Service llama", key="default/llama")
    text = logs.TextFormatter().format(record)
    assert text.endswith(" INFO reconcile default/llama: made Service llama")
    line = json.loads(logs.JsonFormatter().format(record))
    assert (line["key"], line["message"]) == ("default/llama", "made Service llama")
    assert "key" not in json.loads(logs.JsonFormatter().format(_record("stopped")))


def test_a_line_of_json_stays_one_line_whatever_is_said():
    try:
        raise ValueError("two\nlines")
    except ValueError:
        record = _record('a "quote"\nand a break', exc_info=sys.exc_info())
    text = logs.JsonFormatter().format(record)
    assert "\n" not in text
    assert "ValueError" in json.loads(text)["exception"]


def _record(message, key="", **more):
    logger = logs.logging.getLogger("stageline_operator.reconcile")
    exc_info = more.get("exc_info")
    record = logger.makeRecord(logger.name, logs.logging.INFO, "", 0, message, (), exc_info)
    if key:
        record.key = key
    return record


def test_metrics_count_what_happens_and_read_gauges_when_asked():
    metrics, depth = Metrics(), [3]
    metrics.gauges = lambda: {"queue_depth": depth[0]}
    metrics.reconciled("done", 0.02)
    metrics.reconciled("error", 0.2)
    metrics.requested("PATCH", "pods", 409)
    depth[0] = 4
    text = metrics.text().decode()
    for line in (
        'stageline_reconcile_total{result="done"} 1.0',
        "stageline_reconcile_errors_total 1.0",
        "stageline_reconcile_duration_seconds_count 2.0",
        'stageline_api_requests_total{code="409",kind="pods",verb="PATCH"} 1.0',
        "stageline_queue_depth 4.0",
    ):
        assert line in text.splitlines()
