"""Real pipelines for benchmarks: a random Llama, stages as processes on cores, clients."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import grpc
import torch
from barestream import BareStream

from stageline.oip import grpc_service_pb2 as oip
from stageline.oip import grpc_service_pb2_grpc as oip_services
from stageline.v1 import pipeline_pb2 as pb
from stageline.v1 import pipeline_pb2_grpc as services
from stageline_api.documents import PipelineAddress, RouterDocument, StageDocument
from stageline_wire import Frame, Kind, decode, encode
from stageline_worker.channel import open_channel
from stageline_worker.tensors import to_view

VOCABULARY = 8000
CORES = (0, 1)
_STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"


@dataclass(frozen=True)
class Model:
    """A random Llama, float32, eight heads of which four are for keys and values."""

    hidden: int = 512
    layers: int = 16
    max_len: int = 1024

    def save(self, folder: Path) -> Path:
        """A checkpoint with a tokenizer in which each token is a word."""
        from tokenizers import Tokenizer, models, pre_tokenizers
        from transformers import LlamaConfig, LlamaForCausalLM

        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=self.hidden, num_hidden_layers=self.layers,
            intermediate_size=self.hidden * 11 // 4, num_attention_heads=8, num_key_value_heads=4,
            max_position_embeddings=self.max_len,
        )  # fmt: skip
        LlamaForCausalLM(config).save_pretrained(folder)
        words = models.WordLevel({f"w{n}": n for n in range(VOCABULARY)}, unk_token="w0")
        tokenizer = Tokenizer(words)
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        tokenizer.save(str(folder / "tokenizer.json"))
        return folder


@dataclass(frozen=True)
class Cut:
    """How a model is served: layers of each stage, the cores of each, sequences at once."""

    name: str
    partition: tuple[int, ...]
    cores: tuple[tuple[int, ...], ...]
    sequences: int
    transport: str = "auto"


@contextmanager
def pipeline(cut: Cut, checkpoint: Path, folder: Path) -> Iterator[str]:
    """Processes for each stage; the leader's address."""
    addresses = tuple(f"127.0.0.1:{port}" for port in free_ports(len(cut.partition)))
    with ExitStack() as running:
        for stage, cores in enumerate(cut.cores):
            document = StageDocument.model_validate({
                "model": "llama", "pipeline": cut.name, "revision": "bench", "plan_hash": "bench",
                "stage": stage, "partition": cut.partition, "uri": f"file://{checkpoint}",
                "device": "cpu", "max_sequences": cut.sequences, "addresses": addresses,
                "listen": addresses[stage], "transport": cut.transport,
            })  # fmt: skip
            path = folder / f"{cut.name}-{stage}.json"
            path.write_text(document.model_dump_json())
            worker = ("stageline_worker", "stage", "--document", str(path))
            running.enter_context(process(worker, cores, path.with_suffix(".log")))
        yield addresses[0]


@contextmanager
def router(cut: Cut, leader: str, checkpoint: Path, folder: Path) -> Iterator[str]:
    """The front door before one pipeline, on every core; its address."""
    listen = f"127.0.0.1:{free_ports(1)[0]}"
    document = RouterDocument(
        model="llama", uri=f"file://{checkpoint}", listen=listen,
        pipelines=(PipelineAddress(name=cut.name, leader=leader),),
    )  # fmt: skip
    path = folder / f"{cut.name}-router.json"
    path.write_text(document.model_dump_json())
    command = ("stageline_router", "--document", str(path))
    with process(command, CORES, path.with_suffix(".log")):
        yield listen


@contextmanager
def process(module: Sequence[str], cores: Sequence[int], log: Path) -> Iterator[None]:
    """A Python module as a process with a thread for each of its cores.

    What it says goes into `log`, and where it has died, to whoever runs the benchmark.
    """
    with log.open("wb") as said, pinned(cores):
        running = subprocess.Popen(
            [sys.executable, "-m", *module],
            stderr=said,
            env={**os.environ, "OMP_NUM_THREADS": str(len(cores))},
        )
    try:
        yield
    finally:
        if running.poll() is not None:
            sys.stderr.write(log.read_text(errors="replace"))
        running.terminate()
        running.wait(40)


@contextmanager
def pinned(cores: Sequence[int]) -> Iterator[None]:
    """What is begun by this thread meanwhile runs on these cores.

    Not preexec_fn: Python code in a fork of a process in which gRPC has threads can end it.
    """
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class LeaderClient:
    """A router reduced to one Serve stream and the report."""

    def __init__(self, leader: str) -> None:
        self._channel = open_channel(leader)
        self._outgoing: SimpleQueue[bytes | None] = SimpleQueue()
        stream = self._channel.stream_stream("/stageline.v1.Pipeline/Serve")
        self._frames = stream(iter(self._outgoing.get, None), wait_for_ready=True)

    def report(self, condition: Callable[[pb.PipelineReport], bool]) -> pb.PipelineReport:
        """The first report that is so."""
        stub = services.PipelineStub(self._channel)
        for report in stub.Watch(pb.WatchRequest(), wait_for_ready=True, timeout=120):
            if condition(report):
                return report
        raise RuntimeError("the leader ended its reports")

    def trace(self) -> list[pb.StageTrace]:
        """What each stage did of late, the first stage first."""
        traced = services.PipelineStub(self._channel).Trace(pb.TraceRequest(), timeout=30)
        return sorted(traced.stages, key=lambda stage: stage.stage)

    def wait_ready(self) -> pb.PipelineReport:
        return self.report(lambda report: report.state == pb.READY)

    def generate(self, prompts: Sequence[Sequence[int]], count: int) -> Iterator[list[int]]:
        """Which requests got a token, each time that some did, until all have `count`."""
        for request, prompt in enumerate(prompts):
            meta = {"id": request, "max_tokens": count, "ignore_eos": True}
            ids = to_view("input_ids", torch.tensor(prompt))
            self._send(Frame(Kind.GENERATE, meta=meta, tensors=(ids,)))
        ended = 0
        while ended < len(prompts):
            frame = decode(next(self._frames))
            assert frame.kind is Kind.TOKENS, frame.meta
            tokens: list[list[Any]] = frame.meta["tokens"]
            ended += sum(finish is not None for _, _, finish, *_ in tokens)
            yield [request for request, *_ in tokens]

    def infer(self, rows: torch.Tensor, microbatches: int) -> None:
        """That many microbatches of `rows` int64 [batch, tokens], all at once."""
        for request in range(microbatches):
            ids = to_view("input_ids", rows)
            self._send(Frame(Kind.INFER, meta={"id": request}, tensors=(ids,)))
        for _ in range(microbatches):
            frame = decode(next(self._frames))
            assert frame.kind is Kind.ANSWER, frame.meta

    def _send(self, frame: Frame) -> None:
        self._outgoing.put(b"".join(encode(frame)))


class DoorClient:
    """A client of the front door: many texts on one ModelStreamInfer stream."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._stub = oip_services.GRPCInferenceServiceStub(grpc.insecure_channel(address))

    def wait_ready(self, seconds: float = 60.0) -> None:
        until = time.monotonic() + seconds
        while not self._ready():
            if time.monotonic() > until:
                raise RuntimeError(f"the router was not ready after {seconds:g} s")
            time.sleep(0.1)

    def _ready(self) -> bool:
        try:
            asked = oip.ServerReadyRequest()
            return bool(self._stub.ServerReady(asked, wait_for_ready=True, timeout=60).ready)
        except grpc.RpcError:
            return False

    def generate(self, prompts: Sequence[Sequence[int]], count: int) -> Iterator[list[int]]:
        """As `LeaderClient.generate`: one entry for each token."""
        with closing(BareStream(self._address, _STREAM)) as stream:
            for n, prompt in enumerate(prompts):
                stream.send(self._request(n, prompt, count).SerializeToString())
            ended = 0
            for message in stream.messages():
                told = oip.ModelStreamInferResponse.FromString(message)
                assert not told.error_message, told.error_message
                answer = told.infer_response
                ended += answer.parameters["triton_final_response"].bool_param
                yield [int(answer.id)]
                if ended == len(prompts):
                    return
        raise RuntimeError(f"{ended} of {len(prompts)} streams ended, and then the call did")

    def _request(self, number: int, prompt: Sequence[int], count: int) -> oip.ModelInferRequest:
        request = oip.ModelInferRequest(model_name="llama", id=str(number))
        text = request.inputs.add(name="text_input", datatype="BYTES", shape=[1])
        text.contents.bytes_contents.append(" ".join(f"w{token}" for token in prompt).encode())
        request.parameters["stream"].bool_param = True
        request.parameters["max_tokens"].int64_param = count
        request.parameters["ignore_eos"].bool_param = True
        return request


def prompts(count: int, length: int) -> list[list[int]]:
    """Random prompts, the same on every run."""
    generator = torch.Generator().manual_seed(1)
    made = torch.randint(3, VOCABULARY, (count, length), generator=generator)
    found: list[list[int]] = made.tolist()
    return found


def free_ports(count: int) -> list[int]:
    """Ports whose next one is free too: links may listen there."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(found.getsockname()[1]) for found in sockets]
    for found in sockets:
        found.close()
    return ports
