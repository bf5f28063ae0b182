"""Reports and observations in, rows out."""

import pytest

from stageline.v1 import pipeline_pb2 as v1
from stageline_local.process import Observation, Phase
from stageline_local.view import hopeless, loaded_processes, view
from support.layouts import layout, report

LAYOUT = layout()
NAMES = ("m-0-stage-0", "m-0-stage-1", "m-0-stage-2", "m-router")


def seen(**changes):
    """All run, with fields of some changed: stage_1={"phase": ...}."""
    return {
        name: Observation(
            name, **{"phase": Phase.RUNNING, **changes.get(name[4:].replace("-", "_"), {})}
        )
        for name in NAMES
    }


def look(reports, observations=None, proven=(), router_ready=False):
    return view(
        LAYOUT, reports, observations or seen(), frozenset(proven), router_ready=router_ready
    )


def states(shown):
    return [row.state for row in shown.rows]


def test_before_anything_is_known():
    shown = look({}, {name: Observation(name) for name in NAMES})
    assert states(shown) == ["starting"] * 4
    assert [row.layers for row in shown.rows] == ["0-1", "2-4", "5-5", ""]
    assert (shown.pipelines[0].state, shown.ready, shown.info) == ("waiting", False, None)


def test_worker_tells_how_its_stage_is():
    shown = look({"m-0": report(v1.WAITING, [v1.SERVING, v1.LOADING, v1.LOADED], "for stage 1")})
    assert states(shown) == ["serving", "loading", "loaded", "starting"]
    row = shown.rows[1]
    assert (row.loaded_bytes, row.total_bytes, row.microbatches) == (50, 100, 7)
    assert (row.compute_seconds, row.hop_seconds, row.transport) == (0.0012, 0.0003, "grpc")
    assert shown.pipelines[0].message == "for stage 1"


@pytest.mark.parametrize(
    ("state", "router_ready", "ready"),
    [
        (v1.READY, True, True),
        (v1.READY, False, False),
        (v1.CONNECTING, True, False),
        (v1.PIPELINE_DRAINING, True, False),
    ],
)
def test_ready_needs_ring_and_router(state, router_ready, ready):
    assert look({"m-0": report(state, [v1.SERVING] * 3)}, router_ready=router_ready).ready == ready


@pytest.mark.parametrize(
    ("phase", "restarts", "state"),
    [
        (Phase.WAITING, 1, "restarting"),
        (Phase.WAITING, 0, "starting"),
        (Phase.STOPPING, 1, "stopping"),
        (Phase.ENDED, 3, "stopped"),
    ],
)
def test_runtime_tells_where_there_is_no_worker(phase, restarts, state):
    process = {"phase": phase, "restarts": restarts, "error": "killed by SIGKILL"}
    shown = look({"m-0": report(v1.WAITING, [v1.LOADED] * 3)}, seen(stage_1=process))
    assert states(shown)[:3] == ["loaded", state, "loaded"]
    assert shown.rows[1].message == "killed by SIGKILL"
    assert shown.rows[1].restarts == restarts


def test_end_in_order_has_no_reason_though_there_was_a_death_before():
    process = {"phase": Phase.ENDED, "restarts": 1, "error": "killed by SIGKILL"}
    shown = look({"m-0": None}, seen(stage_0=process), proven=NAMES)
    assert (shown.rows[0].state, shown.rows[0].message) == ("stopped", "")
    assert (shown.pipelines[0].state, shown.pipelines[0].message) == ("stopped", "")


def test_reason_of_a_death_stays_until_the_successor_is_up():
    process = seen(stage_1={"restarts": 1, "error": "out of memory"})
    loading = look({"m-0": report(v1.WAITING, [v1.LOADED, v1.LOADING])}, process)
    up = look({"m-0": report(v1.READY, [v1.SERVING, v1.SERVING])}, process)
    assert [loading.rows[1].message, up.rows[1].message] == ["out of memory", ""]


def test_survivors_of_a_dead_leader_are_not_said_to_start_again():
    shown = look({"m-0": None}, proven=NAMES[:3])
    assert states(shown)[:3] == ["starting", "unknown", "unknown"]


def test_stage_that_its_leader_does_not_know_yet_starts():
    shown = look({"m-0": report(v1.WAITING, [v1.LOADED, None, v1.LOADED])}, proven=NAMES[:3])
    assert states(shown)[:3] == ["loaded", "starting", "loaded"]


def test_router_is_ready_only_while_it_runs():
    assert states(look({}, router_ready=True))[3] == "ready"
    assert states(look({}, proven=NAMES))[3] == "waiting"
    down = seen(router={"phase": Phase.WAITING, "restarts": 1, "error": "no port"})
    down["m-router"] = Observation("m-router", Phase.WAITING, restarts=1, error="no port")
    shown = look({}, down, router_ready=True)
    assert (shown.rows[3].state, shown.rows[3].message) == ("restarting", "no port")


def test_info_is_that_of_any_pipeline():
    two = layout(pipelines=2)
    reports = {"m-0": None, "m-1": report(v1.READY, [], task=v1.GENERATE)}
    shown = view(two, reports, {}, frozenset(), router_ready=True)
    assert shown.info.task == v1.GENERATE
    assert shown.ready
    assert [line.state for line in shown.pipelines] == ["waiting", "ready"]


def test_what_has_been_up():
    states = [v1.LOADED, v1.LOADING, v1.SERVING]
    assert loaded_processes(LAYOUT, {"m-0": report(v1.WAITING, states)}) == {NAMES[0], NAMES[2]}
    assert loaded_processes(LAYOUT, {"m-0": None}) == set()


@pytest.mark.parametrize(
    ("restarts", "proven", "useless"), [(2, (), False), (3, (), True), (9, (NAMES[1],), False)]
)
def test_what_never_came_up_is_given_up(restarts, proven, useless):
    process = {"phase": Phase.WAITING, "restarts": restarts, "error": "no config.json"}
    sentence = hopeless(seen(stage_1=process), frozenset(proven))
    assert (sentence is not None) == useless
    if useless:
        assert sentence == "m-0-stage-1 died 3 times before it was up: no config.json"
