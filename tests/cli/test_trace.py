"""`stageline trace`: of a real ring of toy stages, and the forms that a trace is written in."""

import base64
import functools
import json

import pytest
from typer.testing import CliRunner

from stageline.v1 import pipeline_pb2 as pb
from stageline_cli.apiserver import NotFoundError
from stageline_cli.failure import Failure
from stageline_cli.leaders import find_leader
from stageline_cli.main import app
from stageline_cli.spans import chrome, picture
from support.pipeline import free_ports, local_pipeline
from support.toy import toy


def span(sequence, begin, *, kind=pb.SPAN_DECODE, idle=False):
    """Free for 1 s before it begins, 2 s of computing, 0.5 s of sending."""
    return pb.Span(
        kind=kind, session=2**40, sequence=sequence, tokens=3, sequences=3, free=begin - 1,
        begin=begin, end=begin + 2, sent=begin + 2.5, idle=idle,
    )  # fmt: skip


TRACE = pb.PipelineTrace(
    pipeline="llama-0",
    stages=[
        pb.StageTrace(stage=0, spans=[span(1, 100, kind=pb.SPAN_PREFILL, idle=True), span(2, 104)]),
        pb.StageTrace(stage=1, spans=[span(1, 103), span(3, 110)]),
    ],
)


def trace(*arguments):
    result = CliRunner().invoke(app, ["trace", *map(str, arguments)])
    if isinstance(result.exception, Failure):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_a_trace_has_a_lane_for_each_stage_and_an_arrow_for_each_hop():
    events = chrome(TRACE)["traceEvents"]
    names = [(e["name"], e["args"]["name"]) for e in events if e["ph"] == "M"]
    assert names == [
        ("process_name", "llama-0"), ("thread_name", "stage 0"), ("thread_name", "stage 1")
    ]  # fmt: skip
    bars = [(e["tid"], e["name"], e["ts"], e["dur"]) for e in events if e["ph"] == "X"]
    assert bars[:5] == [
        (0, "prefill", 0.0, 2e6),  # waiting for work that is not there is no waiting
        (0, "send", 2e6, 0.5e6),
        (0, "wait", 3e6, 1e6),
        (0, "decode", 4e6, 2e6),
        (0, "send", 6e6, 0.5e6),
    ]
    assert len(bars) == 11
    arrows = [(e["ph"], e["tid"], e["ts"]) for e in events if e["name"] == "hop"]
    assert arrows == [("s", 0, 2e6), ("f", 1, 3e6)], "only microbatch 1 is known at both ends"
    assert events[3]["args"] == {
        "microbatch": 1, "session": str(2**40), "tokens": 3, "sequences": 3
    }  # fmt: skip
    json.dumps(events, allow_nan=False)


def test_a_picture_has_a_lane_for_each_stage():
    pytest.importorskip("PIL")
    image = picture(TRACE)
    assert image.size == (1600, 40 + 2 * 44 + 10)
    colours = {colour for _, colour in image.getcolors(1 << 20)}
    assert {(0x59, 0xA1, 0x4F), (0xF2, 0x8E, 0x2B), (0xD3, 0xD3, 0xD3)} <= colours


def test_a_running_pipeline_is_traced(tmp_path):
    load = functools.partial(toy, delay=0.002)
    files = ("-o", tmp_path / "t.json", "--png", tmp_path / "t.png")
    with local_pipeline("/toy", [1, 1], load=load) as pipeline:
        pipeline.wait_ready()
        with pipeline.router() as router:
            router.generate(1, [1, 2, 3], max_tokens=5, ignore_eos=True)
            router.tokens_of(1)
        said = trace(pipeline.leader, *files)
        few = trace(pipeline.leader, "--last", 2, "-o", tmp_path / "few.json")
    lines = said.splitlines()
    assert [line.split(":")[0] for line in lines[:2]] == ["stage 0", "stage 1"]
    assert "6 microbatches" in lines[0]
    assert lines[2] == f"{tmp_path / 't.json'} is written: open it in https://ui.perfetto.dev"
    events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    kinds = [e["name"] for e in events if e["ph"] == "X" and e["tid"] == 1]
    assert [k for k in kinds if k not in ("wait", "send")] == [
        "infer", "prefill", "decode", "decode", "decode", "decode"
    ]  # fmt: skip
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")
    assert "2 microbatches" in few


class Api:
    """Objects by path; queries are kept."""

    def __init__(self, **objects):
        self._objects = {path.replace("__", "/"): found for path, found in objects.items()}
        self.queries = []

    def get(self, path, **query):
        self.queries.append(query)
        found = self._objects.get(path.removeprefix("/api/v1/namespaces/models/"))
        if found is None:
            raise NotFoundError(f"{path} is not there")
        return found


def pod(name, phase="Running"):
    ports = [{"name": "grpc", "containerPort": 7070}, {"name": "links", "containerPort": 7071}]
    return {
        "metadata": {"name": name},
        "spec": {"containers": [{"ports": ports}]},
        "status": {"phase": phase, "podIP": "127.8.0.3"},
    }


def test_the_leader_of_a_resource_is_its_first_running_stage_0_and_is_shown_a_certificate():
    files = {"ca.crt": b"authority", "tls.crt": b"certificate", "tls.key": b"key"}
    data = {name: base64.b64encode(content).decode() for name, content in files.items()}
    pods = {"items": [pod("b"), pod("c"), pod("a", "Pending")]}
    api = Api(pods=pods, **{"secrets__tiny-router-tls": {"data": data}})
    leader = find_leader(api, "models", "tiny")
    assert (leader.pod, leader.address) == ("b", "127.8.0.3:7070")
    assert api.queries[0] == {
        "labelSelector": "stageline.dev/deployment=tiny,stageline.dev/stage=0"
    }
    with leader.credentials() as folder:
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == files
        assert folder.stat().st_mode & 0o077 == 0, "others may read the key"
    assert not folder.exists()


def test_without_a_secret_none_is_shown_and_without_a_pod_there_is_a_sentence():
    with find_leader(Api(pods={"items": [pod("a")]}), "models", "tiny").credentials() as folder:
        assert folder is None
    with pytest.raises(Failure, match="no stage 0 of tiny runs in namespace models"):
        find_leader(Api(pods={"items": [pod("a", "Failed")]}), "models", "tiny")


def test_nobody_there_is_a_sentence(tmp_path):
    address = f"127.0.0.1:{free_ports(1)[0]}"
    with pytest.raises(Failure, match=f"no trace from {address}"):
        trace(address, "-o", tmp_path / "t.json")
    with pytest.raises(Failure, match=r"ca\.crt"):
        trace(address, "--credentials", tmp_path)
    assert not list(tmp_path.iterdir())
