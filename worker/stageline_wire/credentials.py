"""Mutual TLS with the files of a folder, as a kubelet mounts a Secret: ca.crt, tls.crt, tls.key.

The files may be replaced at any time, and nothing restarts for it: every handshake and every dial
takes those that are there then, if they can be used.

What is dialled is a stage, whatever its address: its certificate must have the name STAGE_NAME.
What its holder may do is for `stageline_wire.roles` to say.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc

from stageline_wire.replaceable import Replaceable
from stageline_wire.roles import Role, roles, server_name

CA, CERTIFICATE, KEY = "ca.crt", "tls.crt", "tls.key"
STAGE_NAME: Final = server_name("stage")
"""What to verify: `server_hostname` of a raw socket."""
CHANNEL_OPTIONS: Final = (("grpc.ssl_target_name_override", STAGE_NAME),)
"""The same, for channels with `Credentials.channel()`."""
_TRIES: Final = 3


class CredentialsError(Exception):
    """The files cannot be used; the message is a sentence."""


@dataclass(frozen=True, slots=True)
class _Loaded:
    ca: bytes
    certificate: bytes
    key: bytes = field(repr=False)
    server: ssl.SSLContext
    client: ssl.SSLContext


class Credentials:
    """What one process shows, and whom it believes. Any thread may use it."""

    def __init__(self, folder: Path) -> None:
        files = [folder / name for name in (CA, CERTIFICATE, KEY)]
        self._files = Replaceable(files, lambda: _load(folder), CredentialsError)

    @classmethod
    def load(cls, folder: Path) -> Credentials:
        """Raises CredentialsError: a file is missing, the key is another's, it has expired."""
        return cls(folder)

    def server(self) -> grpc.ServerCredentials:
        """For a server's port, for good: it asks for a certificate of our authority."""

        def now() -> grpc.ServerCertificateConfiguration:
            loaded = self._files.current()
            return grpc.ssl_server_certificate_configuration(
                [(loaded.key, loaded.certificate)], loaded.ca
            )

        return grpc.dynamic_ssl_server_credentials(now(), now, require_client_authentication=True)

    def channel(self) -> grpc.ChannelCredentials:
        """For one channel, with CHANNEL_OPTIONS: the files as they are now."""
        loaded = self._files.current()
        return grpc.ssl_channel_credentials(loaded.ca, loaded.key, loaded.certificate)

    def ssl_context(self, *, server: bool) -> ssl.SSLContext:
        """For one connection of a raw socket: the files as they are now, TLS 1.3.

        Each end asks for a certificate of our authority. Whoever dials gives STAGE_NAME as
        `server_hostname`; whoever is dialled asks `peer_roles` whom it has met.
        """
        loaded = self._files.current()
        return loaded.server if server else loaded.client


def peer_roles(connection: ssl.SSLSocket | ssl.SSLObject) -> frozenset[Role]:
    """What the other end of a connection is, by its certificate."""
    names = (connection.getpeercert() or {}).get("subjectAltName", ())
    return roles(str(name[1]) for name in names if name[0] == "DNS")


def call_roles(context: grpc.ServicerContext) -> frozenset[Role]:
    """What the caller of a gRPC server is, by its certificate."""
    told: Mapping[str, Any] = context.auth_context() or {}
    names = told.get("x509_subject_alternative_name", ())
    return roles(name.decode(errors="replace") for name in names)


def _load(folder: Path) -> _Loaded:
    """All three as they were at one moment: they may be replaced while they are read."""
    for _ in range(_TRIES):
        files = _read(folder)
        try:
            contexts = _contexts(folder)
        except CredentialsError:
            if _read(folder) == files:
                raise
        else:
            if _read(folder) == files:
                return _Loaded(*files, *contexts)
    raise CredentialsError(f"the files in {folder} are replaced faster than they can be read")


def _read(folder: Path) -> tuple[bytes, bytes, bytes]:
    try:
        ca, certificate, key = ((folder / name).read_bytes() for name in (CA, CERTIFICATE, KEY))
    except OSError as error:
        raise CredentialsError(
            f"there is no {error.filename} to be read ({error.strerror}): mutual TLS needs {CA}, "
            f"{CERTIFICATE} and {KEY} of the resource's Secret in {folder}"
        ) from None
    return ca, certificate, key


def _contexts(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    server.verify_mode = ssl.CERT_REQUIRED
    for context in (server, client):
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        _take(context, folder)
    _prove(server, folder)
    return server, client


def _take(context: ssl.SSLContext, folder: Path) -> None:
    try:
        context.load_verify_locations(folder / CA)
    except (ssl.SSLError, OSError) as error:
        raise CredentialsError(f"{folder / CA} holds no certificate: {_why(error)}") from None
    try:
        # With an empty password, or OpenSSL would ask the terminal for that of a locked key.
        context.load_cert_chain(folder / CERTIFICATE, folder / KEY, password="")
    except (ssl.SSLError, OSError) as error:
        raise CredentialsError(
            f"{folder / CERTIFICATE} and {folder / KEY} are no certificate and its key: "
            f"{_why(error)}"
        ) from None


def _prove(server: ssl.SSLContext, folder: Path) -> None:
    """Show the certificate to ourselves: it is of our authority, for now, and its key fits."""
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    _take(trusting, folder)
    asked, answered = ssl.MemoryBIO(), ssl.MemoryBIO()
    caller = trusting.wrap_bio(answered, asked)
    called = server.wrap_bio(asked, answered, server_side=True)
    try:
        for end in (caller, called, caller, called):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    except ssl.SSLError as error:
        raise CredentialsError(
            f"{folder / CERTIFICATE} would be refused: {_why(error)}; the operator makes another "
            "when the Secret that it is from is deleted"
        ) from None


def _why(error: Exception) -> str:
    told = getattr(error, "verify_message", "") or getattr(error, "reason", "") or str(error)
    return str(told).replace("_", " ").lower()
