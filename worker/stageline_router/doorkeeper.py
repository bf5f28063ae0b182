"""Who is let in at the front door: TLS from a folder, bearer tokens from another.

Both are files of Secrets and may be replaced at any time; what is there then is used from then on.
"""

from __future__ import annotations

import hmac
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from stageline_wire.replaceable import Replaceable

CERTIFICATE, KEY, TOKEN = "tls.crt", "tls.key", "token"
_OPEN = ("/inference.GRPCInferenceService/ServerLive", "/grpc.health.v1.Health/")
_KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
_NONE = (
    "this router answers those who have a token: send it as the metadata authorization: Bearer "
    "TOKEN (stageline: --token-file FILE)"
)
_WRONG = "this router does not know the token: it may have been replaced by another"


class DoorError(ValueError):
    """The files cannot be used; the message is a sentence."""


def front_credentials(folder: Path, secret: str) -> grpc.ServerCredentials:
    """For a server's port, for good; `secret` is the name of what is in the folder.

    DoorError when there is no certificate or its key is not.
    """
    files = Replaceable(
        [folder / CERTIFICATE, folder / KEY], lambda: _pair(folder, secret), DoorError
    )

    def now() -> grpc.ServerCertificateConfiguration:
        certificate, key = files.current()
        return grpc.ssl_server_certificate_configuration([(key, certificate)])

    return grpc.dynamic_ssl_server_credentials(now(), now, require_client_authentication=False)


class Doorkeeper(grpc.aio.ServerInterceptor):
    """Answers UNAUTHENTICATED to whoever has none of the tokens of `secret`, in a folder.

    DoorError when there is none. Whether the server lives may be asked without.
    """

    def __init__(self, folder: Path, secret: str) -> None:
        self._known = Replaceable([folder / TOKEN], lambda: _tokens(folder, secret), DoorError)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(details)
        if handler is None or details.method.startswith(_OPEN):
            return handler
        given = [value for key, value in details.invocation_metadata if key == "authorization"]
        if complaint := self._complaint(given):
            return _closed(handler, complaint)
        return handler

    def _complaint(self, given: list[Any]) -> str:
        scheme, _, token = str(given[0] if given else "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            return _NONE
        # All of them, whichever fits: how long this takes tells nothing of any.
        fits = [hmac.compare_digest(token.encode(), one) for one in self._known.current()]
        return "" if any(fits) else _WRONG


def _closed(handler: Any, complaint: str) -> Any:
    """The same method, of the same kind, for those who are not let in."""

    async def refuse(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, complaint)

    kind = next(kind for kind in _KINDS if getattr(handler, kind) is not None)
    return handler._replace(**{kind: refuse})


def _pair(folder: Path, secret: str) -> tuple[bytes, bytes]:
    certificate = _content(folder / CERTIFICATE, secret)
    key = _content(folder / KEY, secret)
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # With an empty password, or OpenSSL would ask the terminal for that of a locked key.
        context.load_cert_chain(folder / CERTIFICATE, folder / KEY, password="")
    except OSError as error:
        raise DoorError(
            f"{CERTIFICATE} and {KEY} of Secret {secret} are no certificate and its key: "
            f"{getattr(error, 'reason', None) or error}"
        ) from None
    return certificate, key


def _tokens(folder: Path, secret: str) -> tuple[bytes, ...]:
    lines = _content(folder / TOKEN, secret).splitlines()
    if not (found := tuple(filter(None, map(bytes.strip, lines)))):
        raise DoorError(f"Secret {secret} has no token in its key {TOKEN}: put one on each line")
    return found


def _content(file: Path, secret: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise DoorError(
            f"Secret {secret} is not there, or has no key {file.name} ({file}: {error.strerror}): "
            f"make it, or take it out of spec.router"
        ) from None
