"""Which transport a link gets, and that it is told why it is not a faster one."""

import queue
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace

import grpc
import pytest

from stageline.v1 import pipeline_pb2 as pb
from stageline_operator.reports import reduced
from stageline_wire import Frame, Kind
from stageline_worker.channel import SERVER_OPTIONS
from stageline_worker.server import WorkerError, WorkerServer
from stageline_worker.transport import LinkError, LinkRefused, Refusals
from stageline_worker.transport.grpc_inlet import GrpcTransport
from stageline_worker.transport.ladder import Ladder
from stageline_worker.transport.socket_transport import MOST_STRANGERS, SocketTransport
from support.pipeline import QUICK, LocalPipeline, free_ports, stage_documents
from support.toy import toy, toy_tokens

SECONDS = 10.0
HELLO = Frame(Kind.HELLO, 7)


@contextmanager
def taken(address):
    """Somebody else has the port of a stage's socket links, and does not listen there."""
    host, _, port = address.rpartition(":")
    with socket.socket() as other:
        other.bind((host, int(port) + 1))
        yield


def links(report):
    return [(stage.transport, stage.transport_note) for stage in report.stages]


def is_linked(report):
    return report.state == pb.READY and all(transport for transport, _ in links(report))


def test_a_link_whose_socket_is_blocked_falls_back_alone_and_says_why():
    documents = stage_documents("/toy", [1, 1, 1])
    with taken(documents[1].listen), LocalPipeline(documents, toy, QUICK) as pipeline:
        pipeline.start()
        report = pipeline.wait_until(is_linked, "a ring whose links are known")
        (first, why), *others = links(report)
        assert first == "grpc"
        assert why == f"no socket link to {documents[1].listen}: Connection refused"
        assert others == [("unix", ""), ("unix", "")]
        assert reduced(report).stages[0].transport_note == why, "what status will say"
        with pipeline.router() as router:
            router.generate(1, [5, 6, 7], max_tokens=4)
            assert router.tokens_of(1) == toy_tokens([5, 6, 7], 4, 3)


def test_grpc_alone_is_grpc_alone():
    documents = stage_documents("/toy", [1, 1], transport="grpc")
    with LocalPipeline(documents, toy, QUICK) as pipeline:
        pipeline.start()
        report = pipeline.wait_until(is_linked, "a ring whose links are known")
        assert links(report) == [("grpc", ""), ("grpc", "")]


def test_sockets_alone_need_the_port():
    (document,) = stage_documents("/toy", [1], transport="socket")
    with taken(document.listen), pytest.raises(WorkerError) as error:
        WorkerServer(document, toy, QUICK).start()
    assert str(error.value) == (
        "stage 0 cannot take links over sockets: [Errno 98] Address already in use"
    )


def test_sockets_alone_do_not_fall_back():
    first, second = stage_documents("/toy", [1, 1], transport="socket")
    documents = [first.model_copy(update={"transport": "grpc"}), second]
    with LocalPipeline(documents, toy, QUICK) as pipeline:
        # Less patient than its leader, who would say so of all that is missing.
        pipeline.workers[1] = WorkerServer(second, toy, replace(QUICK, connect=0.3))
        pipeline.start()
        said = f"stage 1 cannot link to it: {first.listen} did not answer within 0.3 s"
        pipeline.wait_until(lambda report: said in report.message, f'the reason "{said}"')


class Both:
    """The two transports of a stage that can be dialled over gRPC, and what came in."""

    def __init__(self):
        (port,) = free_ports(1)
        self.address = f"127.0.0.1:{port}"
        self.came = queue.SimpleQueue()
        grpc_transport = GrpcTransport(self.accept, Refusals())
        self.sockets = SocketTransport(self.accept, Refusals())
        self.ladder = Ladder(self.sockets, grpc_transport)
        self._pool = ThreadPoolExecutor(2)
        handlers = [grpc_transport.handler()]
        self._server = grpc.server(self._pool, options=SERVER_OPTIONS, handlers=handlers)
        self._server.add_insecure_port(self.address)
        self._server.start()

    def accept(self, hello, inlet):
        if hello.session == 0:
            raise LinkRefused("session 0 is none of ours")
        self.came.put(inlet)

    @contextmanager
    def dialled(self, hello=HELLO):
        broken = queue.SimpleQueue()
        with closing(self.ladder.dial(self.address, hello, broken.put)) as outlet:
            yield outlet
        assert broken.empty(), broken.get()

    def link(self, seconds=SECONDS):
        """What a link over the ladder is, and why."""
        with self.dialled() as outlet:
            outlet.connect(seconds)
            outlet.send(Frame(Kind.MICROBATCH, HELLO.session, 3))
            inlet = self.came.get(timeout=SECONDS)
            assert inlet.receive(SECONDS).sequence == 3
        inlet.close("the test is over")
        return outlet.transport, outlet.note

    def close(self):
        self.sockets.stop()
        self._server.stop(None).wait()
        self._pool.shutdown()


@pytest.fixture
def stage():
    with closing(Both()) as both:
        yield both


@contextmanager
def answering(address, answer):
    """Who has the port of socket links does `answer(connection)` to each that calls."""
    host, _, port = address.rpartition(":")
    with socket.create_server((host, int(port) + 1)) as listening:
        listening.settimeout(SECONDS)

        def serve():
            with suppress(OSError):
                connection, _ = listening.accept()
                with connection:
                    answer(connection)

        serving = threading.Thread(target=serve)
        serving.start()
        yield
    serving.join()


def test_the_socket_is_preferred(stage):
    stage.sockets.listen(stage.address)
    assert stage.link() == ("unix", "")


def test_a_port_that_drops_what_comes_costs_moments(stage):
    """As a NetworkPolicy does; here it is a listener whose queue is full."""
    host, _, port = stage.address.rpartition(":")
    began = time.monotonic()
    with socket.socket() as listening, ExitStack() as stack:
        listening.bind((host, int(port) + 1))
        listening.listen(0)
        for _ in range(4):
            caller = stack.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(listening.getsockname())
        how, why = stage.link()
    assert how == "grpc"
    assert "it took too long" in why
    assert time.monotonic() - began < 5.0


def test_a_port_on_which_somebody_else_answers_is_none(stage):
    with answering(stage.address, lambda peer: peer.sendall(b"HTTP/1.1 400 Bad Request\r\n" * 9)):
        assert stage.link() == (
            "grpc", f"no socket link to {stage.address}: not a Stageline frame of version 1"
        )  # fmt: skip


def test_a_port_on_which_nobody_speaks_is_none(stage):
    with answering(stage.address, lambda peer: peer.recv(1 << 20) and peer.recv(1)):
        assert stage.link(1.0) == ("grpc", f"{stage.address} did not answer within 0.5 s")


def test_a_stage_that_refuses_is_believed(stage):
    stage.sockets.listen(stage.address)
    with (
        stage.dialled(Frame(Kind.HELLO, 0)) as outlet,
        pytest.raises(LinkError, match="session 0 is none of ours"),
    ):
        outlet.connect(SECONDS)


def test_a_dial_that_is_closed_does_not_fall_back(stage):
    silence = answering(stage.address, lambda peer: peer.recv(1 << 20) and peer.recv(1))
    with silence, stage.dialled() as outlet:
        threading.Timer(0.1, outlet.close).start()
        with pytest.raises(LinkError, match="it was closed here"):
            outlet.connect(60.0)
    assert stage.came.empty()


def test_strangers_hold_no_more_threads_than_are_allowed(stage):
    stage.sockets.listen(stage.address)
    host, _, port = stage.address.rpartition(":")
    with ExitStack() as stack:
        for _ in range(2 * MOST_STRANGERS):
            stack.enter_context(closing(socket.create_connection((host, int(port) + 1))))
        greeting = [thread for thread in threading.enumerate() if thread.name == "greet"]
        assert len(greeting) <= MOST_STRANGERS
