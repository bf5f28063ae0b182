"""Resources as `stageline status` prints them, by table."""

from datetime import UTC, datetime, timedelta

import pytest

from stageline_cli.summary import age, is_ready, news, summary, troubles
from support.resources import conditions, resource, stage

NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)
HEALTHY = """\
NAME    READY   STAGES   PIPELINES   UPDATED   REASON      AGE
llama   True    2        1/1         1         AllIsWell   3m

plan of revision f00: 3 + 3 layers in 2 stages; memory was not checked

pipeline     stage  layers  state    loaded  loads  compute     hop  transport  pod            node   restarts
llama-f00-0      0  0-2     Serving   3 MiB      1   1.2 ms  0.3 ms  grpc       llama-f00-0-0  local         0
llama-f00-0      1  3-5     Serving   3 MiB      1   1.2 ms  0.3 ms  grpc       llama-f00-0-1  local         0"""  # noqa: E501

CRASH = "pipeline 0 stage 1 (pod llama-f00-0-1): crashed 4 times: no space left on device"
FAILING = f"""\
NAME    READY   STAGES   PIPELINES   UPDATED   REASON         AGE
llama   False   2        0/1         1         StageCrashed   3m

Ready False, ModelLoaded False StageCrashed: {CRASH}
Reconciling True StageCrashed: 1 of 2 stages

plan of revision f00: 3 + 3 layers in 2 stages; memory was not checked

pipeline     stage  layers  state    loaded            loads  compute     hop  transport  pod            node   restarts  message
llama-f00-0      0  0-2     Loaded   3 MiB                 1   1.2 ms  0.3 ms  grpc       llama-f00-0-0  local         0
llama-f00-0      1          Failed   512 KiB of 3 MiB      1                              llama-f00-0-1  local         4  no space left on device

event    type     reason        note
20s ago  Normal   Planned       cut in 2
5s ago   Warning  StageCrashed  a second line"""  # noqa: E501


def event(seconds, kind, reason, note):
    stamp = (NOW - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return {"metadata": {}, "eventTime": stamp, "type": kind, "reason": reason, "note": note}


def test_healthy_resource():
    assert summary(resource(), [], NOW) == HEALTHY


def test_failing_resource():
    broken = stage(
        1, state="Failed", layers="", bytesLoaded=512 << 10, computeMilliseconds="",
        hopMilliseconds="", transport="", restarts=4, message="no space left on device",
    )  # fmt: skip
    failing = resource(
        pipelines="0/1",
        conditions=conditions(
            Ready=("False", "StageCrashed", CRASH),
            ModelLoaded=("False", "StageCrashed", CRASH),
            Reconciling=("True", "StageCrashed", "1 of 2 stages"),
        ),
        stages=[stage(0, state="Loaded"), broken],
    )
    events = [
        event(5, "Warning", "StageCrashed", "a second\nline"),
        event(20, "Normal", "Planned", "cut in 2"),
    ]
    printed = summary(failing, events, NOW).splitlines()
    assert [" ".join(line.split()) for line in printed] == [
        " ".join(line.split()) for line in FAILING.splitlines()
    ]


def test_a_link_that_fell_back_says_why_beside_its_stage():
    why = "no socket link to llama-f00-0-1:7070: Connection refused"
    fallen = stage(0, transport="grpc", transportNote=why)
    found = resource(stages=[fallen, stage(1)])
    (line,) = (line for line in summary(found, [], NOW).splitlines() if why in line)
    assert line.startswith("llama-f00-0      0 ")
    (line,) = (one.line for one in news(found) if one.key == "llama-f00-0 0")
    assert line.endswith(f"grpc  {why}")


def test_resource_that_no_operator_has_seen():
    fresh = {"metadata": {"name": "llama", "generation": 1}, "spec": {"replicas": 2}}
    assert summary(fresh, [], NOW).splitlines() == [
        "NAME    READY     PIPELINES   UPDATED   AGE",
        "llama   Unknown   0/2         0         0s",
        "",
        "the operator has not seen the newest spec yet: is it running?",
    ]


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({}, []),
        ({"Stalled": ("True", "Spent", "gave up")}, ["Stalled True Spent: gave up"]),
        ({"Planned": ("Unknown", "Profiling", "")}, ["Planned Unknown Profiling"]),
        (
            {"Ready": ("False", "A", "x"), "RouterReady": ("False", "B", "x")},
            ["Ready False A: x", "RouterReady False B: x"],
        ),
        (
            {
                "Ready": ("False", "A", "it crashed (and 2 more)"),
                "ModelLoaded": ("False", "A", "1 of 2 are loaded; it crashed"),
            },
            ["Ready False A: it crashed (and 2 more)", "ModelLoaded False A: 1 of 2 are loaded"],
        ),
        (
            {"OperatorConflict": ("True", "SecondOperator", "uninstall one of the two")},
            ["OperatorConflict True SecondOperator: uninstall one of the two"],
        ),
    ],
)
def test_only_what_is_not_as_it_should_be_is_trouble(changes, lines):
    assert troubles(resource(conditions=conditions(**changes))) == lines


@pytest.mark.parametrize(
    ("entries", "ready"),
    [
        (conditions(), True),
        ([], False),
        (conditions(Ready=("Unknown", "Accepted", "")), False),
        (conditions(Ready=("False", "RouterFailed", "")), False),
    ],
)
def test_ready_is_what_the_condition_says(entries, ready):
    assert is_ready(resource(conditions=entries)) == ready


def told(*, essence=False, **status):
    return {one.key: one.essence if essence else one.line for one in news(resource(**status))}


def test_number_that_grows_is_no_news():
    def loading(count):
        one = stage(0, state="Loading", bytesLoaded=count << 20)
        words = f"stage 0: {count} of 3 MiB of its weights are loaded"
        entries = conditions(
            Ready=("False", "StageLoading", words), ModelLoaded=("False", "StageLoading", words)
        )
        return told(essence=True, conditions=entries, stages=[one])

    assert loading(1) == loading(2)


def test_lines_of_a_stage_and_a_condition():
    lines = told(
        conditions=conditions(Planned=("Unknown", "Profiling", "")),
        stages=[stage(0, state="Loading"), stage(1, restarts=2, message="killed")],
    )
    assert lines["llama-f00-0 0"] == "llama-f00-0 stage 0  layers 0-2  Loading  grpc"
    assert lines["llama-f00-0 1"] == (
        "llama-f00-0 stage 1  layers 3-5  Serving  3 MiB  grpc  restarts 2  killed"
    )
    assert lines["Ready"] == "Ready True AllIsWell: all is well"
    assert "Planned" not in lines, "what is not known yet is no news"


def test_long_partition_is_told_by_its_sum():
    plan = {"partition": [4] * 100, "hash": "h", "memoryChecked": True}
    assert "plan: 400 layers in 100 stages; every stage fits" in summary(
        resource(plan=plan), [], NOW
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0s"), (0, "0s"), (119, "119s"), (120, "2m"), (200, "3m20s"), (600, "10m"),
        (3 * 3600 + 600, "3h10m"), (9 * 3600, "9h"), (47 * 3600, "47h"), (50 * 3600, "2d2h"),
        (40 * 86400, "40d"),
    ],
)  # fmt: skip
def test_ages_are_kubectls(seconds, text):
    assert age(NOW, NOW - timedelta(seconds=seconds)) == text
