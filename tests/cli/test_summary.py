"""Resources as `stageline status` prints them, by table."""

from datetime import UTC, datetime, timedelta

import pytest

from stageline_cli.summary import age, changed_lines, is_ready, summary, troubles

NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)
GOOD = {
    "Ready": "True",
    "Reconciling": "False",
    "Stalled": "False",
    "Planned": "True",
    "StagesScheduled": "True",
    "ModelLoaded": "True",
    "PipelineConnected": "True",
    "RouterReady": "True",
}


def conditions(**changes):
    """All as they should be but these: kind=(status, reason, message)."""
    made = [
        {"type": kind, "status": status, "reason": "AllIsWell", "message": "all is well"}
        for kind, status in GOOD.items()
    ]
    for entry in made:
        if entry["type"] in changes:
            entry["status"], entry["reason"], entry["message"] = changes[entry["type"]]
    return made


def stage(number, **more):
    return {
        "pipeline": "llama-f00-0",
        "stage": number,
        "state": "Serving",
        "layers": f"{3 * number}-{3 * number + 2}",
        "bytesLoaded": 3 << 20,
        "bytesTotal": 3 << 20,
        "loads": 1,
        "computeMilliseconds": "1.2",
        "hopMilliseconds": "0.3",
        "transport": "grpc",
        "pod": f"llama-f00-0-{number}",
        "node": "local",
    } | more


def resource(**status):
    return {
        "metadata": {
            "name": "llama",
            "generation": 2,
            "creationTimestamp": "2026-11-24T11:57:00Z",
        },
        "spec": {"replicas": 1},
        "status": {
            "observedGeneration": 2,
            "pipelines": "1/1",
            "stageCount": 2,
            "updatedReplicas": 1,
            "plan": {"revision": "f00", "partition": [3, 3], "hash": "h", "memoryChecked": False},
            "conditions": conditions(),
            "stages": [stage(0), stage(1)],
        }
        | status,
    }


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
    # The loaded column is right-aligned, so its heading is too.
    printed = summary(failing, events, NOW).splitlines()
    assert [" ".join(line.split()) for line in printed] == [
        " ".join(line.split()) for line in FAILING.splitlines()
    ]


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
    ],
)
def test_only_what_is_not_as_it_should_be_is_trouble(changes, lines):
    assert troubles(resource(conditions=conditions(**changes))) == lines


@pytest.mark.parametrize(
    ("status", "ready"),
    [
        ({}, True),
        ({"conditions": []}, False),
        ({"observedGeneration": 1}, False),
        ({"conditions": conditions(Ready=("Unknown", "Accepted", ""))}, False),
    ],
)
def test_ready_is_about_the_newest_spec(status, ready):
    assert is_ready(resource(**status)) == ready


def test_change_of_a_number_that_grows_while_loading_changes_no_line():
    def lines(loaded):
        loading = stage(0, state="Loading", bytesLoaded=loaded, computeMilliseconds="")
        return dict(changed_lines(resource(stages=[loading])))

    assert lines(1 << 20) == lines(2 << 20)
    assert lines(0)["llama-f00-0 0"] == "llama-f00-0 stage 0  layers 0-2  Loading  grpc"


def test_lines_of_a_stage_and_a_condition():
    told = dict(changed_lines(resource(stages=[stage(1, restarts=2, message="killed")])))
    assert told["llama-f00-0 1"] == (
        "llama-f00-0 stage 1  layers 3-5  Serving  3 MiB  grpc  restarts 2  killed"
    )
    assert told["Ready"] == "Ready True AllIsWell: all is well"


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
