"""What the benchmarks pretend is what the operator reads, and what they print is so."""

from __future__ import annotations

import importlib
import sys
from collections import Counter
from pathlib import Path

import pytest

from stageline.v1 import pipeline_pb2 as pb
from stageline_operator.profiling import read_profile
from stageline_operator.reports import reduced

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture
def bench(monkeypatch):
    """Imports a module of bench/, where scripts stand beside what they import."""
    monkeypatch.syspath_prepend(BENCH)
    known = set(sys.modules)
    yield importlib.import_module
    for name in {path.stem for path in BENCH.glob("*.py")} - known:
        sys.modules.pop(name, None)


def test_no_script_hides_a_module_of_the_standard_library():
    """A script's folder comes first on its path: bench/operator.py would break Python itself."""
    hidden = {path.stem for path in BENCH.glob("*.py")} & sys.stdlib_module_names
    assert not hidden, f"bench/{min(hidden, default='')}.py hides the standard library's"


def test_the_fake_leaders_report_is_of_the_pipeline_that_was_asked_for_and_ready(bench):
    worker = bench("fakeworker")
    asked = pb.WatchRequest(pipeline="llama-aaa-0", revision="aaa")
    read = reduced(worker.report(asked, worker.Pretence(stages=4, layers=24)))
    assert (read.pipeline, read.revision, read.state) == ("llama-aaa-0", "aaa", "Ready")
    assert [(stage.first_layer, stage.end_layer) for stage in read.stages] == [
        (0, 6), (6, 12), (12, 18), (18, 24),
    ]  # fmt: skip
    assert {stage.state for stage in read.stages} == {"Serving"}


def test_the_profile_that_the_fake_worker_takes_can_be_planned_from(bench):
    assert read_profile(bench("fakeworker").profile(24)).layers == 24


def test_the_floors_objects_are_those_of_the_operator_without_what_others_put_into_them(bench):
    afresh = bench("fleet").afresh
    metadata = {"name": "x", "labels": {"a": "b"}}
    seen = metadata | {"uid": "u", "resourceVersion": "7", "namespace": "n", "ownerReferences": [1]}
    pod = {"kind": "Pod", "metadata": seen, "spec": {"nodeName": "n", "hostname": "x"},
           "status": {"phase": "Running"}}  # fmt: skip
    assert afresh(pod) == {"kind": "Pod", "metadata": metadata, "spec": {"hostname": "x"}}
    ports = {"ports": [{"port": 1}]}
    for ip, kept in (("10.96.0.7", {}), ("None", {"clusterIP": "None"})):
        spec = {"clusterIP": ip, "clusterIPs": [ip], **ports}
        service = {"kind": "Service", "metadata": seen, "spec": spec}
        assert afresh(service)["spec"] == {**kept, **ports}


def test_a_figure_over_its_target_is_called_so(bench):
    line = bench("report").Line
    assert line("a", 1.25, "x", 1.25).verdict == "within 1.25 x"
    assert line("a", 1.26, "x", 1.25).verdict == "OVER 1.25 x"
    assert line("a", 9.0, "s").verdict == ""


def test_calls_are_counted_from_the_operators_own_metrics(bench):
    watched, metrics = bench("watched"), importlib.import_module("stageline_operator.metrics")
    counted = metrics.Metrics()
    for verb, kind, code in (
        ("POST", "pods", 201), ("POST", "pods", 409), ("GET", "pods", 200), ("PUT", "leases", 200),
    ):  # fmt: skip
        counted.requested(verb, kind, code)
    calls = watched.read_calls(counted.text().decode())
    assert calls == Counter({("POST", "pods"): 2, ("GET", "pods"): 1})
    assert watched.writes(calls) == 2


def test_what_processes_cost_is_told_a_resource_the_dearest_first(bench):
    cost = bench("cost")
    columns = {"ours": cost.Cost({"a": 100, "b": 400}), "floor": cost.Cost({"a": 50})}
    assert cost.table(columns, 10).splitlines() == [
        "| CPU a resource, ms | ours | floor |",
        "|---|---:|---:|",
        "| b | 40 | 0 |",
        "| a | 10 | 5 |",
        "| together | 50 | 5 |",
    ]
