"""Views as they are printed."""

import asyncio
import io
import os
import signal

import pytest
from rich.console import Console

from stageline.v1 import pipeline_pb2 as v1
from stageline_cli.screen import Lines, Terminal, table
from stageline_cli.up import _Session, try_next
from stageline_local.process import Observation, Phase
from stageline_local.view import view
from support.layouts import layout, report
from support.processes import until

LAYOUT = layout(partition=(2, 3))


def moment(one, *, router_ready=False, **seen):
    names = ("m-0-stage-0", "m-0-stage-1", "m-router")
    observed = {name: Observation(name, Phase.RUNNING) for name in names}
    observed["m-0-stage-1"] = Observation("m-0-stage-1", **{"phase": Phase.RUNNING, **seen})
    return view(LAYOUT, {"m-0": one}, observed, frozenset(), router_ready=router_ready)


LOADING = moment(report(v1.WAITING, [v1.LOADED, v1.LOADING], "stage 1 has 3 of 8.5 MiB"))
SERVING = moment(report(v1.READY, [v1.SERVING, v1.SERVING]), router_ready=True)


def printed(view) -> list[list[str]]:
    console = Console(width=160, file=io.StringIO())
    console.print(table(view))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_table_has_a_row_for_each_process():
    heading, first, second, router, *_ = printed(SERVING)
    assert heading.split() == [
        "pipeline", "stage", "layers", "state", "loaded", "batches", "compute", "hop", "transport",
        "restarts", "message",
    ]  # fmt: skip
    assert first.split() == [
        "m-0",
        "0",
        "0-1",
        "serving",
        "50",
        "B",
        "of",
        "100",
        "B",
        "7",
        "1.20",
        "ms",
        "0.30",
        "ms",
        "grpc",
        "0",
    ]
    assert second.split()[:4] == ["m-0", "1", "2-4", "serving"]
    assert router.split() == ["router", "ready", "0"]


def test_table_says_what_a_pipeline_waits_for():
    assert "m-0: stage 1 has 3 of 8.5 MiB" in printed(LOADING)
    assert not any("m-0:" in line for line in printed(SERVING))


def test_message_with_brackets_is_printed_as_it_is():
    broken = moment(None, phase=Phase.WAITING, restarts=1, error="[bold] no layer [3]")
    assert any("[bold] no layer [3]" in line for line in printed(broken))


def test_lines_come_on_change_only(capsys):
    lines = Lines()
    lines.show(LOADING)
    first = capsys.readouterr().out.splitlines()
    assert first == [
        "m-0 stage 0  layers 0-1  loaded  50 B of 100 B  grpc",
        "m-0 stage 1  layers 2-4  loading  grpc",
        "router  starting",
        "m-0  waiting  stage 1 has 3 of 8.5 MiB",
    ]
    lines.show(LOADING)
    more = report(v1.WAITING, [v1.LOADED, v1.LOADING], "stage 1 has 900 KiB of 8.5 MiB")
    more.stages[1].loaded_bytes = 99
    more.stages[0].microbatches = 1000
    lines.show(moment(more))
    assert capsys.readouterr().out == "", "mere progress was printed"
    lines.show(SERVING)
    assert capsys.readouterr().out.splitlines() == [
        "m-0 stage 0  layers 0-1  serving  50 B of 100 B  grpc",
        "m-0 stage 1  layers 2-4  serving  50 B of 100 B  grpc",
        "router  ready",
        "m-0  ready",
    ]


def test_terminal_draws_the_table_and_keeps_lines_above_it():
    console = Console(width=160, file=io.StringIO(), force_terminal=True)
    with Terminal(console) as screen:
        screen.show(LOADING)
        screen.say("m is ready at 127.0.0.1:8001")
        screen.show(SERVING)
    text = console.file.getvalue()
    assert text.index("loading") < text.index("m is ready at 127.0.0.1:8001")
    assert text.rindex("serving") > text.index("m is ready")


@pytest.mark.parametrize(
    ("info", "address", "command"),
    [
        (
            {"task": v1.GENERATE},
            "127.0.0.1:8001",
            'stageline generate "The "',
        ),
        (
            {"task": v1.INFER, "embeds_text": True},
            "127.0.0.1:9001",
            'stageline infer --text "A cat sat on the mat." --address 127.0.0.1:9001',
        ),
        (
            {
                "task": v1.INFER,
                "inputs": [
                    v1.TensorSpec(name="pixel_values"),
                    v1.TensorSpec(name="more", optional=True),
                ],
            },
            "127.0.0.1:8001",
            "stageline infer --input pixel_values=@pixel_values.npy",
        ),
    ],
)
def test_command_that_fits_the_model_is_named(info, address, command):
    ready = moment(report(v1.READY, [], **info), router_ready=True)
    assert try_next(ready, address) == command


async def test_first_signal_stops_and_the_second_kills(capsys):
    asked = []

    class Asked:
        def stop(self):
            asked.append("stop")

        def kill(self):
            asked.append("kill")

    session = _Session(LAYOUT, Lines())
    session.obey_signals(Asked())
    try:
        os.kill(os.getpid(), signal.SIGINT)
        await until(lambda: asked == ["stop"])
        assert not session.killed
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0)
        assert not session.killed, "the same signal to process and group is one signal"
        began = asyncio.get_running_loop().time()
        while not session.killed:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(0.02)
        assert asked[:2] == ["stop", "kill"]
        assert asyncio.get_running_loop().time() - began < 2, "the second signal was not obeyed"
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().remove_signal_handler(number)
    assert "Ctrl-C again kills" in capsys.readouterr().out


def test_ready_is_told_once_with_what_to_try(capsys):
    session = _Session(LAYOUT, Lines())
    for moment_shown in (SERVING, LOADING, SERVING):
        session.show(moment_shown)
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("m is", " "))]
    assert said == [
        "m is ready at 127.0.0.1:21000",
        "  try: stageline infer --input NAME=@NAME.npy --address 127.0.0.1:21000",
        "m is ready again at 127.0.0.1:21000",
    ]
