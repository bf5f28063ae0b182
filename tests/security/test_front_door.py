"""The front door with TLS and tokens, for clients that know nothing of Stageline."""

import contextlib

import grpc
import pytest
import tritonclient.grpc as triton
from grpc_health.v1 import health_pb2, health_pb2_grpc
from typer.testing import CliRunner

from stageline_api.documents import PipelineAddress
from stageline_cli.failure import Failure
from stageline_cli.main import app
from stageline_router.server import Folders, RouterError
from stageline_wire.credentials import Credentials
from support.certificates import Authority, front_pair
from support.front import router, router_document
from support.pipeline import QUICK, LocalPipeline, free_ports, stage_documents
from support.toy import toy

TOKENS = ("correct-horse", "battery-staple")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """All that a kubelet mounts into a router, and what a client has."""
    folder = tmp_path_factory.mktemp("front")
    ours = Authority()
    for role in ("stage", "router"):
        ours.folder(folder / role, role)
    show(folder, front_pair())
    (folder / "tokens").mkdir()
    (folder / "tokens" / "token").write_text("".join(f"{token}\n" for token in TOKENS))
    return folder


def show(folder, pair):
    (folder / "tls").mkdir(exist_ok=True)
    (folder / "tls" / "tls.crt").write_bytes(pair.certificate)
    (folder / "tls" / "tls.key").write_bytes(pair.key)
    (folder / "client.crt").write_bytes(pair.certificate)


@contextlib.contextmanager
def front_of(folder, checkpoint, **folders):
    """A router with these folders, in front of one pipeline whose stages ask for certificates."""
    document = stage_documents("/toy", [1], credentials=str(folder / "stage"))
    with LocalPipeline(document, toy, QUICK) as pipeline:
        pipeline.credentials = Credentials.load(folder / "router")
        pipeline.start()
        pipeline.wait_ready()
        address = PipelineAddress(name="llama-0", leader=pipeline.leader, tls=True)
        health = f"127.0.0.1:{free_ports(1)[0]}"
        told = router_document(checkpoint, [], health=health)
        told = told.model_copy(update={"pipelines": (address,)})
        folders = Folders(folder / "router", **folders)
        with router(told, [pipeline], folders) as front:
            yield front


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A folder without a tokenizer."""
    return tmp_path_factory.mktemp("checkpoint")


@pytest.fixture(scope="module")
def front(folder, checkpoint):
    secrets = {"tls": folder / "tls", "tokens": folder / "tokens"}
    with front_of(folder, checkpoint, **secrets) as front:
        yield front


def client_of(front, folder, **more):
    return triton.InferenceServerClient(
        front.address, ssl=True, root_certificates=str(folder / "client.crt"), **more
    )


@pytest.mark.parametrize("token", TOKENS)
def test_whoever_has_a_token_is_answered_over_tls(front, folder, token):
    headers = {"authorization": f"Bearer {token}"}
    with client_of(front, folder) as client:
        assert client.get_model_metadata("model", headers=headers).name == "model"
        tensor = triton.InferInput("input_ids", [1, 2], "INT64")
        tensor.set_data_from_numpy(numbers([[1, 2]]))
        answer = client.infer("model", [tensor], headers=headers)
        assert answer.as_numpy("last") is not None


def numbers(rows):
    import numpy as np

    return np.array(rows, dtype=np.int64)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({}, "this router answers those who have a token"),
        ({"authorization": "Bearer "}, "this router answers those who have a token"),
        ({"authorization": "Basic correct-horse"}, "this router answers those who have a token"),
        ({"authorization": "Bearer correct"}, "this router does not know the token"),
        ({"authorization": "Bearer correct-horse2"}, "this router does not know the token"),
        ({"authorization": "correct-horse"}, "this router answers those who have a token"),
    ],
)
def test_whoever_has_none_is_told_so(front, folder, given, sentence):
    with client_of(front, folder) as client:
        with pytest.raises(triton.InferenceServerException) as refused:
            client.get_model_metadata("model", headers=given)
        assert refused.value.status() == "StatusCode.UNAUTHENTICATED"
        assert refused.value.message().startswith(sentence)
        assert "horse" not in refused.value.message(), "no token is ever repeated"


def test_streams_are_closed_to_them_too(front, folder):
    channel = grpc.secure_channel(
        front.address, grpc.ssl_channel_credentials((folder / "client.crt").read_bytes())
    )
    stream = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
    with channel, pytest.raises(grpc.RpcError) as refused:
        next(stream(iter([b""]), timeout=10))
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_whether_it_lives_may_be_asked_without_a_token(front, folder):
    with client_of(front, folder) as client:
        assert client.is_server_live()
    with grpc.insecure_channel(front.server.document.health) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(service="router"), timeout=10
        )
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_plaintext_is_not_answered(front):
    with grpc.insecure_channel(front.address) as channel, pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary("/inference.GRPCInferenceService/ServerLive")(b"", timeout=10)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


def test_the_command_line_is_let_in_by_a_file_of_certificates_and_one_with_a_token(
    front, folder, tmp_path
):
    token = tmp_path / "token"
    token.write_text(f"{TOKENS[1]}\n")
    call = ["infer", "--address", front.address, "--input", "input_ids=[[1, 2]]"]
    let_in = ["--ca", str(folder / "client.crt"), "--token-file", str(token)]
    done = CliRunner().invoke(app, [*call, *let_in])
    assert done.exit_code == 0, done.output
    assert "last" in done.output


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([], "nothing answers at"),
        (["--ca", "{ca}"], "this router answers those who have a token"),
        (["--ca", "{other}"], "nothing that {other} vouches for answers at"),
        (["--ca", "/nothing"], "--ca /nothing cannot be read: No such file"),
        (["--ca", "{ca}", "--token-file", "{empty}"], "--token-file {empty} has no token"),
        (["--ca", "{ca}", "--token-file", "/nothing"], "--token-file /nothing cannot be read"),
    ],
)
def test_the_command_line_says_what_is_missing(front, folder, tmp_path, options, sentence):
    other, empty = tmp_path / "other.crt", tmp_path / "empty"
    other.write_bytes(front_pair().certificate)
    empty.write_text("\n")
    names = {"ca": folder / "client.crt", "other": other, "empty": empty}
    call = ["infer", "--address", front.address, "--input", "input_ids=[[1, 2]]"]
    done = CliRunner().invoke(app, [*call, *(option.format(**names) for option in options)])
    assert isinstance(done.exception, Failure), done.output
    assert str(done.exception).startswith(sentence.format(**names))


# Files that change, and files that are not there


def test_tokens_and_certificates_are_replaced_without_a_restart(folder, checkpoint, tmp_path):
    show(tmp_path, front_pair())
    (tmp_path / "token").write_text("old\n")
    with front_of(folder, checkpoint, tls=tmp_path / "tls", tokens=tmp_path) as front:
        with client_of(front, tmp_path) as client:
            assert client.get_server_metadata(headers={"authorization": "Bearer old"})
        before = (tmp_path / "client.crt").read_bytes()
        show(tmp_path, front_pair())
        (tmp_path / "token").write_text("new\nnewer\n")
        with client_of(front, tmp_path) as client:
            for token in ("new", "newer"):
                assert client.get_server_metadata(headers={"authorization": f"Bearer {token}"})
            with pytest.raises(triton.InferenceServerException, match="does not know the token"):
                client.get_server_metadata(headers={"authorization": "Bearer old"})
        (tmp_path / "client.crt").write_bytes(before)
        with (
            client_of(front, tmp_path) as client,
            pytest.raises(triton.InferenceServerException),
        ):
            client.is_server_live(client_timeout=10)
        (tmp_path / "token").write_text("\n")
        (tmp_path / "tls" / "tls.key").unlink()
        (tmp_path / "client.crt").write_bytes((tmp_path / "tls" / "tls.crt").read_bytes())
        with client_of(front, tmp_path) as client:
            assert client.get_server_metadata(headers={"authorization": "Bearer new"}), (
                "files that became useless are passed over"
            )


def no_secret(folder):
    return "Secret front is not there, or has no key tls.crt ("


def no_token(folder):
    (folder / "tokens").mkdir()
    (folder / "tokens" / "token").write_text("\n\n")
    show(folder, front_pair())
    return "Secret clients has no token in its key token: put one on each line"


def another_key(folder):
    show(folder, front_pair())
    (folder / "tls" / "tls.key").write_bytes(front_pair().key)
    return "tls.crt and tls.key of Secret front are no certificate and its key: KEY_VALUES_MISMATCH"


@pytest.mark.parametrize("make", [no_secret, no_token, another_key])
def test_a_router_without_what_the_spec_names_says_so_and_does_not_start(
    checkpoint, tmp_path, make
):
    sentence = make(tmp_path)
    folders = Folders(tls=tmp_path / "tls", tokens=tmp_path / "tokens")
    told = router_document(checkpoint, [], tls_secret="front", token_secret="clients")
    with (
        pytest.raises(RouterError) as refused,
        router(told, folders=folders),
    ):
        pass
    assert sentence in str(refused.value)
    assert "PRIVATE" not in str(refused.value)


# The router's own certificate


def test_a_router_says_that_it_has_no_certificate_and_serves_once_it_has_one(
    folder, checkpoint, tmp_path
):
    ours = Authority()
    ours.folder(tmp_path / "stage", "stage")
    document = stage_documents("/toy", [1], credentials=str(tmp_path / "stage"))
    with LocalPipeline(document, toy, QUICK) as pipeline:
        pipeline.start()
        told = router_document(checkpoint, [])
        address = PipelineAddress(name="llama-0", leader=pipeline.leader, tls=True)
        told = told.model_copy(update={"pipelines": (address,)})
        own = tmp_path / "router"
        with (
            router(told, [pipeline], Folders(own)) as front,
            triton.InferenceServerClient(front.address) as client,
        ):
            tensor = triton.InferInput("input_ids", [1, 2], "INT64")
            tensor.set_data_from_numpy(numbers([[1, 2]]))
            with pytest.raises(triton.InferenceServerException) as refused:
                client.infer("model", [tensor], timeout=None, client_timeout=2)
            assert f"there is no {own}/ca.crt to be read" in refused.value.message()
            ours.folder(own, "router")
            assert client.infer("model", [tensor], client_timeout=20).as_numpy("last") is not None
