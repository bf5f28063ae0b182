"""Where a server is, and what it asks of callers: options of every command that calls one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stageline_cli.failure import Failure

if TYPE_CHECKING:
    import grpc.aio

DEFAULT_ADDRESS = "127.0.0.1:8001"

Address = Annotated[str, typer.Option(help="host:port of the server.")]
Ca = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Speak TLS: certificates of who vouches for the server."),
]
TokenFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="The bearer token that the server asks for.")
]
_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_http_proxy", 0),
)


@dataclass(frozen=True, slots=True)
class Server:
    """A server of the Open Inference Protocol, and how it is called."""

    address: str
    ca: Path | None = None
    token_file: Path | None = None

    def channel(self) -> grpc.aio.Channel:
        """Failure when the file of --ca cannot be read."""
        import grpc.aio

        if self.ca is None:
            return grpc.aio.insecure_channel(self.address, options=_OPTIONS)
        credentials = grpc.ssl_channel_credentials(_content(self.ca, "--ca"))
        return grpc.aio.secure_channel(self.address, credentials, options=_OPTIONS)

    def metadata(self) -> tuple[tuple[str, Any], ...]:
        """What goes with every call. Failure when there is no token in the file."""
        if self.token_file is None:
            return ()
        words = _content(self.token_file, "--token-file").decode(errors="replace").split()
        if not words:
            raise Failure(f"--token-file {self.token_file} has no token")
        if not words[0].isascii():
            raise Failure(f"--token-file {self.token_file} holds no token: it is not ASCII")
        return (("authorization", f"Bearer {words[0]}"),)

    @property
    def silence(self) -> str:
        """A sentence for when nobody answers."""
        if self.ca is not None:
            return (
                f"nothing that {self.ca} vouches for answers at {self.address}: the certificate "
                "there must be of it and have the name in --address, and a server without TLS "
                "wants no --ca"
            )
        return (
            f"nothing answers at {self.address}: start a model with `stageline up FILE`, or say "
            "with --address where a server is, and with --ca that it speaks TLS"
        )


def _content(file: Path, option: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise Failure(f"{option} {file} cannot be read: {error.strerror}") from None
