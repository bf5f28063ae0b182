"""Resources as `stageline up` prints them while they change."""

import asyncio
import io
import os
import signal

import pytest
from rich.console import Console

from stageline.oip import grpc_service_pb2 as oip
from stageline_cli.screen import Lines, Terminal, picture
from stageline_cli.up import _Show, try_next
from support.processes import until
from support.resources import conditions, resource, stage

SENTENCE = "pipeline 0 stage 1 has 3 of 8.5 MiB"
LOADING = resource(
    conditions=conditions(Ready=("False", "StageLoading", SENTENCE)),
    stages=[stage(0, state="Loaded"), stage(1, state="Loading", bytesLoaded=1 << 20)],
)
SERVING = resource()


def printed(one) -> list[str]:
    console = Console(width=160, file=io.StringIO())
    console.print(picture(one))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_picture_has_a_line_for_each_stage_and_for_each_trouble():
    heading, first, second, *rest = printed(LOADING)
    assert heading.split() == [
        "pipeline", "stage", "layers", "state", "loaded", "restarts", "compute", "hop", "transport",
    ]  # fmt: skip
    assert first.split()[:4] == ["f00-0", "0", "0-2", "Loaded"]
    assert second.split()[3:8] == ["Loading", "1", "MiB", "of", "3"]
    assert rest == [f"Ready False StageLoading: {SENTENCE}"]
    assert len(printed(SERVING)) == 3
    assert max(map(len, printed(SERVING))) <= 80, "it does not fit an ordinary terminal"


def test_before_anything_is_known_there_is_no_line_of_a_stage():
    fresh = resource(stages=[], conditions=conditions(Ready=("Unknown", "Accepted", "seen")))
    assert printed(fresh) == ["Ready Unknown Accepted: seen"]


def test_message_with_brackets_is_printed_as_it_is():
    broken = resource(stages=[stage(0, state="Failed", message="[bold] no layer [3]")])
    assert any("[bold] no layer [3]" in line for line in printed(broken))


def test_lines_come_on_change_only(capsys):
    lines = Lines()
    lines.show(LOADING)
    first = capsys.readouterr().out.splitlines()
    assert f"Ready False StageLoading: {SENTENCE}" in first
    assert first[-2:] == [
        "llama-f00-0 stage 0  layers 0-2  Loaded  3 MiB  grpc",
        "llama-f00-0 stage 1  layers 3-5  Loading  grpc",
    ]
    lines.show(LOADING)
    lines.show(
        resource(
            conditions=conditions(
                Ready=("False", "StageLoading", SENTENCE.replace("3 of", "900 KiB of"))
            ),
            stages=[stage(0, state="Loaded"), stage(1, state="Loading", bytesLoaded=2 << 20)],
        )
    )
    assert capsys.readouterr().out == "", "mere progress was printed"
    lines.show(SERVING)
    assert capsys.readouterr().out.splitlines() == [
        "Ready True AllIsWell: all is well",
        "llama-f00-0 stage 0  layers 0-2  Serving  3 MiB  grpc",
        "llama-f00-0 stage 1  layers 3-5  Serving  3 MiB  grpc",
    ]


def test_terminal_draws_the_table_and_keeps_lines_above_it():
    console = Console(width=160, file=io.StringIO(), force_terminal=True)
    with Terminal(console) as screen:
        screen.show(LOADING)
        screen.say("llama is ready at 127.0.0.1:8001")
        screen.show(SERVING)
    text = console.file.getvalue()
    assert text.index("Loading") < text.index("llama is ready at 127.0.0.1:8001")
    assert text.rindex("Serving") > text.index("llama is ready")


@pytest.mark.parametrize(
    ("inputs", "outputs", "address", "command"),
    [
        (["text_input"], ["text_output"], "127.0.0.1:8001", 'stageline generate "The "'),
        (
            ["input_ids", "text_input"],
            ["last_hidden_state", "embedding"],
            "127.0.0.1:9001",
            'stageline infer --text "A cat sat on the mat." --address 127.0.0.1:9001',
        ),
        (
            ["input_ids"],
            ["embedding"],
            "127.0.0.1:8001",
            "stageline infer --input input_ids=@input_ids.npy",
        ),
        (
            ["pixel_values"],
            ["logits"],
            "127.0.0.1:8001",
            "stageline infer --input pixel_values=@pixel_values.npy",
        ),
    ],
)
def test_command_that_fits_the_model_is_named(inputs, outputs, address, command):
    tensor = oip.ModelMetadataResponse.TensorMetadata
    metadata = oip.ModelMetadataResponse(
        inputs=[tensor(name=name) for name in inputs],
        outputs=[tensor(name=name) for name in outputs],
    )
    assert try_next(metadata, address) == command


async def test_first_signal_stops_and_the_second_kills(capsys):
    asked = []

    class Asked:
        def stop(self):
            asked.append("stop")

        def kill(self):
            asked.append("kill")

    show = _Show("llama", "127.0.0.1:1", Lines())
    show.obey_signals(Asked())
    try:
        os.kill(os.getpid(), signal.SIGINT)
        await until(lambda: asked == ["stop"])
        assert not show.killed
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0)
        assert not show.killed, "the same signal to process and group is one signal"
        began = asyncio.get_running_loop().time()
        while not show.killed:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(0.02)
        assert asked[:2] == ["stop", "kill"]
        assert asyncio.get_running_loop().time() - began < 2, "the second signal was not obeyed"
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().remove_signal_handler(number)
    assert "Ctrl-C again kills" in capsys.readouterr().out


async def test_ready_is_told_with_its_address_and_again_after_a_repair(capsys):
    show = _Show("llama", "127.0.0.1:1", Lines())
    for moment in (SERVING, LOADING, SERVING):
        show.show(moment)
    show._suggestion.cancel()
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("llama is")]
    assert said == ["llama is ready at 127.0.0.1:1", "llama is ready again at 127.0.0.1:1"]
