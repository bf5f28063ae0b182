"""Certificates from files: what is wrong with them, whom they let in, and how they are replaced."""

import socket
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import timedelta

import grpc
import pytest

from stageline_operator.authority import Pair
from stageline_wire.credentials import (
    CHANNEL_OPTIONS,
    STAGE_NAME,
    Credentials,
    CredentialsError,
    call_roles,
    peer_roles,
)
from stageline_wire.roles import ROLES, objection, roles
from support.certificates import DAY, Authority, put


@pytest.fixture(scope="module")
def ours():
    return Authority()


@pytest.fixture(scope="module")
def theirs():
    return Authority("default/other")


# What is wrong with files


def missing(ours, theirs, folder):
    return folder


def foreign(ours, theirs, folder):
    return put(folder, theirs.pair.certificate, ours.issue("stage"))


def expired(ours, theirs, folder):
    return ours.folder(folder, "stage", pair=ours.issue("stage", ago=2 * DAY, life=DAY))


def mismatched(ours, theirs, folder):
    pair = Pair(ours.issue("stage").certificate, ours.issue("stage").key)
    return ours.folder(folder, "stage", pair=pair)


def nonsense(ours, theirs, folder):
    return put(folder, b"nonsense", ours.issue("stage"))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (missing, "there is no {}/ca.crt to be read (No such file or directory)"),
        (foreign, "{}/tls.crt would be refused: unable to get local issuer certificate"),
        (expired, "{}/tls.crt would be refused: certificate has expired"),
        (mismatched, "{0}/tls.crt and {0}/tls.key are no certificate and its key: key values"),
        (nonsense, "{}/ca.crt holds no certificate"),
    ],
)
def test_files_that_cannot_be_used_are_refused_with_a_sentence(
    ours, theirs, tmp_path, make, sentence
):
    folder = make(ours, theirs, tmp_path / "tls")
    with pytest.raises(CredentialsError) as refused:
        Credentials.load(folder)
    assert str(refused.value).startswith(sentence.format(folder))
    assert "PRIVATE" not in str(refused.value)


# Whom they let in


@pytest.mark.parametrize("role", ROLES)
def test_a_role_is_known_by_its_certificate_on_a_raw_socket(ours, tmp_path, role):
    stage = Credentials.load(ours.folder(tmp_path / "stage", "stage"))
    caller = Credentials.load(ours.folder(tmp_path / "caller", role))
    assert met(stage, caller.ssl_context(server=False)) == {role}


@contextmanager
def answering(credentials):
    """A server of one method, which tells its caller what it is."""
    server = grpc.server(ThreadPoolExecutor(2), options=[("grpc.so_reuseport", 0)])
    who = grpc.unary_unary_rpc_method_handler(lambda _, call: " ".join(call_roles(call)).encode())
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("a.B", {"Who": who})])
    port = server.add_secure_port("127.0.0.1:0", credentials.server())
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def ask(address, credentials, options=CHANNEL_OPTIONS):
    """What the server says; raises grpc.RpcError."""
    with grpc.secure_channel(address, credentials, options=options) as channel:
        return channel.unary_unary("/a.B/Who")(b"", timeout=10).decode()


@pytest.mark.parametrize("role", ROLES)
def test_a_role_is_known_by_its_certificate_over_grpc(ours, tmp_path, role):
    stage = Credentials.load(ours.folder(tmp_path / "stage", "stage"))
    caller = Credentials.load(ours.folder(tmp_path / "caller", role))
    with answering(stage) as address:
        assert ask(address, caller.channel()) == role


def test_whoever_is_no_stage_is_not_taken_for_one(ours, tmp_path):
    """A router's certificate is of the same authority, and does not make its holder a stage."""
    router = Credentials.load(ours.folder(tmp_path / "router", "router"))
    with answering(router) as address, pytest.raises(grpc.RpcError):
        ask(address, router.channel())
    with pytest.raises(ssl.SSLError, match=r"certificate"):
        met(router, router.ssl_context(server=False))


def test_strangers_are_let_in_nowhere(ours, theirs, tmp_path):
    stage = Credentials.load(ours.folder(tmp_path / "stage", "stage"))
    stranger = Credentials.load(theirs.folder(tmp_path / "stranger", "stage"))
    pair = theirs.issue("stage")
    trusting = grpc.ssl_channel_credentials(ours.pair.certificate, pair.key, pair.certificate)
    anonymous = grpc.ssl_channel_credentials(ours.pair.certificate)
    late = ours.issue("router", ago=2 * DAY, life=DAY)
    expired = grpc.ssl_channel_credentials(ours.pair.certificate, late.key, late.certificate)
    with answering(stage) as address:
        for credentials in (stranger.channel(), trusting, anonymous, expired):
            with pytest.raises(grpc.RpcError) as refused:
                ask(address, credentials)
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as refused:
            channel.unary_unary("/a.B/Who")(b"", timeout=10)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


def met(server, client, name=STAGE_NAME):
    """The roles that `server` sees of who dials with the context `client`; raises ssl.SSLError."""
    near, far = socket.socketpair()
    seen = []

    def accept():
        with closing(near):
            try:
                with server.ssl_context(server=True).wrap_socket(near, server_side=True) as end:
                    seen.append(peer_roles(end))
                    end.sendall(b"x")
            except (ssl.SSLError, OSError) as error:
                seen.append(error)

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        far.settimeout(10)
        with client.wrap_socket(far, server_hostname=name) as end:
            assert end.version() == "TLSv1.3"
            assert end.recv(1) == b"x", seen
    finally:
        far.close()
        thread.join()
    return seen[0]


@pytest.mark.parametrize(
    ("method", "may"),
    [
        ("/stageline.v1.Relay/Link", {"stage"}),
        ("/stageline.v1.Control/Attach", {"stage"}),
        ("/stageline.v1.Pipeline/Serve", {"router"}),
        ("/stageline.v1.Pipeline/Watch", {"router", "operator"}),
        ("/stageline.v1.Pipeline/Whatever", set()),
    ],
)
def test_each_role_may_call_what_it_needs_and_nothing_else(method, may):
    assert {role for role in ROLES if objection(method, {role}) is None} == may
    assert "nobody that is known" in objection(method, set())
    assert roles(["stage.stageline.evil", "xstage.stageline", "STAGE.stageline"]) == set()


# How they are replaced


def test_every_dial_and_every_handshake_takes_the_files_of_that_moment(ours, theirs, tmp_path):
    stage = Credentials.load(ours.folder(tmp_path / "stage", "stage"))
    router = Credentials.load(ours.folder(tmp_path / "router", "router"))
    both = ours.pair.certificate + theirs.pair.certificate
    with answering(stage) as address:
        assert ask(address, router.channel()) == "router"
        theirs.folder(tmp_path / "stage", "stage", trusted=both)  # as in the middle of a rotation
        with pytest.raises(grpc.RpcError):
            ask(address, router.channel())
        ours.folder(tmp_path / "router", "router", trusted=both)
        assert ask(address, router.channel()) == "router"
    assert met(stage, router.ssl_context(server=False)) == {"router"}


def test_files_that_became_useless_are_passed_over(ours, theirs, tmp_path):
    stage = Credentials.load(ours.folder(tmp_path / "stage", "stage"))
    router = Credentials.load(ours.folder(tmp_path / "router", "router"))
    with answering(stage) as address:
        for useless in (foreign, expired, mismatched, nonsense):
            useless(ours, theirs, tmp_path / "stage")
            assert ask(address, router.channel()) == "router", useless.__name__
        (tmp_path / "stage" / "tls.key").unlink()
        assert ask(address, router.channel()) == "router"


def test_a_certificate_is_good_from_the_moment_it_is_made(ours, tmp_path):
    """And a little before, for nodes whose clock is late."""
    pair = ours.issue("stage", ago=timedelta(minutes=-4))
    Credentials.load(ours.folder(tmp_path / "stage", "stage", pair=pair))
