"""More than can be served, readers that do not read, leaders that do not live."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

import grpc
import pytest
import tritonclient.grpc as triton

from stageline.oip import grpc_service_pb2 as oip
from stageline.oip import grpc_service_pb2_grpc as services
from stageline_router import pipelines
from stageline_wire import Frame, Kind
from support.clients import outcome, text_input
from support.front import Front, router, router_document
from support.lettered import FIRST_BYTE, lettered
from support.scriptedleader import Broke, ScriptedLeader, failure, scripted, tokens

STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
LETTERS = [FIRST_BYTE + ord(letter) - ord("!") for letter in "ABCDEF"]
ASK = {"parameters": {"max_tokens": 6}}


@contextmanager
def behind(script, **fields) -> Iterator[tuple[Front, ScriptedLeader]]:
    """A router, and behind it one leader that follows the script."""
    with ExitStack() as stack:
        leader = stack.enter_context(scripted(script))
        document = router_document(lettered(), [leader.address], **fields)
        yield stack.enter_context(router(document)), leader


def ask(front: Front, **options):
    with triton.InferenceServerClient(front.address) as client:
        return outcome(client, text_input("x"), **ASK, **options)


def request(name: str, max_tokens: int, *, stream: bool = False) -> oip.ModelInferRequest:
    made = oip.ModelInferRequest(model_name="model", id=name)
    made.inputs.add(name="text_input", datatype="BYTES", shape=[1])
    made.raw_input_contents.append(b"\1\0\0\0x")
    made.parameters["stream"].bool_param = stream
    made.parameters["max_tokens"].int64_param = max_tokens
    return made


def test_a_leader_that_dies_after_each_token_costs_no_text():
    def one_token_each(frame: Frame) -> Iterable[Frame]:
        so_far = frame.meta["output"]
        yield tokens(frame, LETTERS[so_far], finish="length" if so_far == 5 else None)
        if so_far < 5:
            raise Broke

    with behind(one_token_each) as (front, leader):
        answer = ask(front)
    assert answer.as_numpy("text_output").tolist() == [b"xABCDEF"]
    seeds = {frame.meta["seed"] for frame in leader.frames}
    assert len(seeds) == 1, "the seed was drawn again"
    assert [frame.tensors[0].shape for frame in leader.frames] == [(n,) for n in range(1, 7)]


def test_a_request_that_lost_three_leaders_in_a_row_ends():
    def die(frame: Frame) -> Iterable[Frame]:
        raise Broke

    with behind(die) as (front, leader):
        error = ask(front)
    assert error.status() == "StatusCode.UNAVAILABLE"
    assert "lost 3 leaders in a row and is not tried again" in error.message()
    assert "the process is gone" in error.message()
    assert leader.count(Kind.GENERATE) == 3


def test_an_accepted_request_waits_while_the_next_pipeline_is_full():
    def dead_then_full_then_well(frame: Frame) -> Iterable[Frame]:
        turn = leader.count(Kind.GENERATE)
        if turn == 1:
            raise Broke
        if turn < 4:
            yield failure(frame, "RESOURCE_EXHAUSTED", "full", retry_after=0.05)
        else:
            yield tokens(frame, *LETTERS, finish="length")

    with behind(dead_then_full_then_well) as (front, leader):
        answer = ask(front)
    assert answer.as_numpy("text_output").tolist() == [b"xABCDEF"]


def test_a_new_request_is_told_at_once_that_all_is_full():
    def full(frame: Frame) -> Iterable[Frame]:
        yield failure(frame, "RESOURCE_EXHAUSTED", "as full as can be", retry_after=7.2)

    with behind(full) as (front, leader), grpc.insecure_channel(front.address) as channel:
        stub = services.GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError) as refused:
            stub.ModelInfer(request("a", 6), timeout=20)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert refused.value.details() == "as full as can be"
    assert dict(refused.value.trailing_metadata())["retry-after"] == "8"
    assert leader.count(Kind.GENERATE) == 1


def test_who_is_always_sent_elsewhere_is_not_held_for_ever(monkeypatch):
    monkeypatch.setattr(pipelines, "HOLD", 1.2)

    def elsewhere(frame: Frame) -> Iterable[Frame]:
        yield failure(frame, "UNAVAILABLE", "not here", elsewhere=True)

    with behind(elsewhere) as (front, _):
        error = ask(front, client_timeout=20)
    assert error.status() == "StatusCode.UNAVAILABLE"
    assert "model is not ready" in error.message()


def test_of_a_thousand_at_once_as_many_are_served_as_there_are_places():
    places, decided = 50, threading.Event()

    def once_all_have_come(frame: Frame) -> Iterable[Frame]:
        assert decided.wait(60)
        yield tokens(frame, *LETTERS, finish="length")

    with (
        behind(once_all_have_come, max_queue=places) as (front, leader),
        grpc.insecure_channel(front.address) as channel,
    ):
        stub, told = services.GRPCInferenceServiceStub(channel), threading.Semaphore(0)
        calls = [stub.ModelInfer.future(request("a", 6), timeout=60) for _ in range(1000)]
        for call in calls:
            call.add_done_callback(lambda _: told.release())
        for _ in range(1000 - places):
            assert told.acquire(timeout=30), "not all who found no place were told so"
        decided.set()
        errors = [error for call in calls if (error := call.exception()) is not None]
    assert len(errors) == 1000 - places
    for error in errors:
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, error
        assert "this router holds no more: send it again in" in error.details()
        assert int(dict(error.trailing_metadata())["retry-after"]) >= 1
    assert leader.count(Kind.GENERATE) == places


def test_a_client_that_does_not_read_loses_that_request_alone():
    """Long ids make responses of 4 KiB, so that a few hundred are more than any buffer."""

    def talk(frame: Frame) -> Iterable[Frame]:
        if frame.kind is Kind.GENERATE and frame.meta["max_tokens"] > 6:
            for number in range(3000):
                if leader.count(Kind.CANCEL):
                    return
                yield tokens(frame, LETTERS[number % 6])
        elif frame.kind is Kind.GENERATE:
            yield tokens(frame, *LETTERS, finish="length")

    name, more = "deaf" * 1000, threading.Event()

    def requests() -> Iterator[bytes]:
        yield request(name, 4000, stream=True).SerializeToString()
        more.wait(60)
        yield request("next", 6, stream=True).SerializeToString()

    with behind(talk) as (front, leader), grpc.insecure_channel(front.address) as channel:
        said = channel.stream_stream(STREAM)(requests(), timeout=60)
        leader.wait_for(Kind.CANCEL)
        assert ask(front).as_numpy("text_output").tolist() == [b"xABCDEF"], "others felt it"
        more.set()
        answers = [oip.ModelStreamInferResponse.FromString(message) for message in said]
    *before, last = [a for a in answers if a.infer_response.id == name]
    assert "reads too slowly or not at all: this request ends" in last.error_message
    assert len(before) < 3000
    assert all(not answer.error_message for answer in before)
    (served,) = [a.infer_response for a in answers if a.infer_response.id == "next"]
    assert served.raw_output_contents[0][4:] == b"ABCDEF", "the stream served nobody any more"
