"""`stageline batch`: every line once, whatever happens, against a real router and real stages."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from typer.testing import CliRunner

from stageline.oip import grpc_service_pb2 as oip
from stageline_cli.batchfile import Results, check_ids, read_line
from stageline_cli.failure import Failure
from stageline_cli.main import app
from support.front import front_door
from support.lettered import lettered
from support.oip_server import GENERATOR, Oip, serving, text_response
from support.processes import processes_marked, until
from support.up import write_manifest

LINES = [{"prompt": f"line {n}", "max_tokens": 4 + n % 3, "ignore_eos": True} for n in range(60)]


@pytest.fixture(scope="module")
def front():
    with front_door(lettered(), [3, 3]) as front:
        yield front


def write(path: Path, lines: list) -> Path:
    path.write_text("".join(f"{x if isinstance(x, str) else json.dumps(x)}\n" for x in lines))
    return path


def results(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def batch(address: str, *arguments) -> tuple[int, str]:
    """Exit code and stdout; raises Failure."""
    result = CliRunner().invoke(app, ["batch", *map(str, arguments), "--address", address])
    if isinstance(result.exception, Failure):
        raise result.exception
    return result.exit_code, result.stdout


async def command(*arguments):
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "stageline_cli.main", "batch", *map(str, arguments)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


def test_each_line_has_its_text_and_counts(front, tmp_path):
    given = write(tmp_path / "in.jsonl", LINES[:20])
    code, said = batch(front.address, given, tmp_path / "out.jsonl")
    assert (code, said[:42]) == (0, "20 of 20 lines done, 0 of them with an err")
    found = {result["id"]: result for result in results(tmp_path / "out.jsonl")}
    assert sorted(found) == list(range(1, 21))
    for number, result in found.items():
        assert result["num_output_tokens"] == LINES[number - 1]["max_tokens"]
        assert result["num_input_tokens"] == len(LINES[number - 1]["prompt"])
        assert result["finish_reason"] == "length"
        assert not result["text"].startswith("line"), "the prompt is repeated"


def test_texts_are_those_of_requests_alone(front, tmp_path):
    line = {"id": "x", "prompt": "once", "max_tokens": 12, "temperature": 1.0, "seed": 3}
    lines = [line, {**line, "id": "y"}, {**line, "id": "n", "n": 3}]
    batch(front.address, write(tmp_path / "in.jsonl", lines), tmp_path / "out.jsonl")
    texts = {result["id"]: result["text"] for result in results(tmp_path / "out.jsonl")}
    assert texts["x"] == texts["y"] == texts["n"][0]
    assert len(set(texts["n"])) == 3, "texts of one request are the same"


def test_wrong_lines_are_errors_and_the_others_are_done(front, tmp_path):
    lines = [
        {"id": "good", "prompt": "a", "max_tokens": 2},
        "{",
        "",
        {"prompt": "a", "temprature": 1},
        {"id": True, "prompt": "a"},
        {"id": "both", "prompt": "a", "messages": []},
        {"id": "none"},
        {"id": "chat", "messages": [{"role": "user", "content": "Hello"}]},
        {"id": "long", "prompt": "a" * 300},
        [1],
        {"id": "nan", "prompt": "a", "temperature": float("nan")},
    ]
    code, said = batch(front.address, write(tmp_path / "in.jsonl", lines), tmp_path / "out.jsonl")
    assert code == 1
    assert "10 of 10 lines done, 9 of them with an error" in said
    errors = {r["id"]: r.get("error", "") for r in results(tmp_path / "out.jsonl")}
    wanted = {
        "good": "", 2: "line 2 is no JSON", 4: "did you mean temperature?",
        5: "the id of line 5 is neither", "both": "both prompt and messages",
        "none": "neither prompt nor messages", "chat": "no chat template", "long": "300 tokens",
        10: "line 10 is no JSON object", "nan": "temperature is nan",
    }  # fmt: skip
    assert errors.keys() == wanted.keys()
    for name, sentence in wanted.items():
        assert sentence in errors[name]


@pytest.mark.parametrize(("slots", "expected"), [("2", 3), ("0", 4), (None, 4)])
def test_requests_under_way_are_a_few_more_than_the_server_makes_texts(slots, expected, tmp_path):
    now, most, reached = 0, 0, threading.Barrier(expected)
    counting = threading.Lock()

    class Counting(Oip):
        def ModelConfig(self, request, context):
            if slots is None:
                context.abort(grpc.StatusCode.UNIMPLEMENTED, "no configuration here")
            parameters = {"sequence_slots": oip.ModelParameter(string_value=slots)}
            return oip.ModelConfigResponse(config=oip.ModelConfig(parameters=parameters))

        def ModelInfer(self, request, context):
            nonlocal now, most
            with counting:
                now += 1
                most = max(most, now)
            reached.wait(20)  # breaks, and so fails the request, when fewer come
            with counting:
                now -= 1
            return super().ModelInfer(request, context)

    given = write(tmp_path / "in.jsonl", LINES[: 5 * expected])
    server = Counting(inputs=GENERATOR, answer=lambda r: text_response(r, "text"))
    with serving(server) as address:  # which answers four at once and no more
        assert batch(address, given, tmp_path / "out.jsonl")[0] == 0
    assert most == expected


async def test_after_a_kill_no_line_is_lost_and_none_is_there_twice(front, tmp_path):
    given, out = write(tmp_path / "in.jsonl", LINES), tmp_path / "out.jsonl"
    arguments = (given, out, "--address", front.address, "--concurrency", "4")
    for least in (5, 20):
        process = await command(*arguments)
        await until(lambda n=least: out.exists() and out.read_bytes().count(b"\n") >= n)
        process.kill()
        await process.communicate()
        before = out.read_bytes()
        assert before.count(b"\n") < len(LINES), "it was done before it could be killed"
        with out.open("ab") as file:
            file.write(b'{"id": 60, "te')  # what a kill within a write leaves
    for turn in ("the rest", "nothing"):
        process = await command(*arguments)
        said, errors = await asyncio.wait_for(process.communicate(), 60)
        assert (process.returncode, errors) == (0, b""), f"there was {turn} to do"
        assert said.startswith(b"60 of 60 lines done, 0 of them with an error")
        assert out.read_bytes().startswith(before), "what was there is not there any more"
        assert sorted(result["id"] for result in results(out)) == list(range(1, 61))


async def test_ctrl_c_ends_it_in_order(front, tmp_path):
    lines = [{**LINES[0], "max_tokens": 100}] * 40
    given, out = write(tmp_path / "in.jsonl", lines), tmp_path / "out.jsonl"
    process = await command(given, out, "--address", front.address, "--concurrency", "2")
    await until(lambda: out.exists() and out.read_bytes().count(b"\n") >= 2)
    process.send_signal(signal.SIGINT)
    said, errors = await asyncio.wait_for(process.communicate(), 20)
    assert (process.returncode, errors) == (130, b"")
    done = len(results(out))
    assert said.decode() == f"{done} of 40 lines done, run the same command to go on\n"
    front.pipelines[0].wait_until(lambda r: r.sequences == 0, "an end of the work", seconds=5)


@contextmanager
def refusing(refusals: list[tuple[grpc.StatusCode, str, int]]):
    """A server that refuses so often, then answers."""

    class Busy(Oip):
        def ModelInfer(self, request, context):
            if refusals:
                code, message, seconds = refusals.pop()
                if seconds:
                    context.set_trailing_metadata((("retry-after", str(seconds)),))
                context.abort(code, message)
            return super().ModelInfer(request, context)

    with serving(Busy(inputs=GENERATOR, answer=lambda r: text_response(r, "text"))) as address:
        yield address


def test_who_is_told_to_come_back_comes_back(tmp_path):
    refusals = [
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "full", 1),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "full", 0),
        (grpc.StatusCode.UNAVAILABLE, "not ready", 0),
    ]
    given = write(tmp_path / "in.jsonl", LINES[:2])
    with refusing(refusals) as address:
        assert batch(address, given, tmp_path / "out.jsonl")[0] == 0
    assert [result["text"] for result in results(tmp_path / "out.jsonl")] == ["text", "text"]


def test_a_server_that_is_gone_costs_no_line(tmp_path, monkeypatch):
    monkeypatch.setattr("stageline_cli.batchrun._PATIENCE", 0.5)
    given = write(tmp_path / "in.jsonl", LINES[:2])
    gone = [(grpc.StatusCode.UNAVAILABLE, "no pipeline", 0)] * 9
    with refusing(gone) as address, pytest.raises(Failure) as told:
        batch(address, given, tmp_path / "out.jsonl")
    assert str(told.value) == "no pipeline\n0 of 2 lines done, run the same command to go on"
    assert results(tmp_path / "out.jsonl") == [], "what is not the line's fault was recorded"


def test_files_that_do_not_go_together_are_refused(tmp_path):
    given, out = write(tmp_path / "in.jsonl", LINES[:3]), tmp_path / "out.jsonl"
    for content, sentence in [
        ('{"id": 7, "text": ""}\n', "a result of 7, which"),
        ("hello\n", "line 1 of .* is no result of a batch"),
    ]:
        out.write_text(content)
        with pytest.raises(Failure, match=sentence):
            batch("127.0.0.1:1", given, out)
        assert out.read_text() == content, "a stranger's file was changed"
    with pytest.raises(Failure, match="is the file of requests"):
        batch("127.0.0.1:1", given, given)
    with pytest.raises(Failure, match=r"no such file|none\.jsonl cannot be read"):
        batch("127.0.0.1:1", tmp_path / "none.jsonl", out)
    write(given, [{"id": "a", "prompt": "x"}, {"id": "a", "prompt": "y"}])
    with pytest.raises(Failure, match=r"the id 'a' is in .* twice"):
        check_ids(given)


def test_two_commands_do_not_write_one_file(tmp_path):
    with Results(tmp_path / "out.jsonl"), pytest.raises(Failure, match="another command writes"):
        Results(tmp_path / "out.jsonl").__enter__()


def test_a_line_nested_without_end_is_one_wrong_line():
    assert "line 3 is no JSON" in read_line(3, b"[" * 100_000).wrong


async def test_a_manifest_is_served_for_the_batch_alone(tmp_path):
    path, _ = write_manifest(tmp_path, lettered())
    given, out = write(tmp_path / "in.jsonl", LINES[:3]), tmp_path / "out.jsonl"
    state = ("--state-dir", str(tmp_path / "state"))
    process = await command(given, out, "--file", path, *state)
    said, errors = await asyncio.wait_for(process.communicate(), 100)
    assert (process.returncode, errors) == (0, b""), said
    assert said.startswith(b"3 of 3 lines done")
    assert sorted(result["id"] for result in results(out)) == [1, 2, 3]
    await until(lambda: not processes_marked(str(tmp_path)), what="the end of every process")
