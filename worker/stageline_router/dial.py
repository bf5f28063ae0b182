"""How a router reaches leaders: in plaintext, or with the certificate of the moment."""

from __future__ import annotations

from pathlib import Path

import grpc.aio

from stageline_wire.credentials import CHANNEL_OPTIONS, Credentials, CredentialsError

_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.enable_http_proxy", 0),
)


class Dial:
    """Opens channels. `folder` has the router's certificate, now or once a leader asks for it."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._credentials: Credentials | None = None

    def open(self, address: str, *, tls: bool) -> grpc.aio.Channel:
        """A channel to a leader; CredentialsError when it asks for what this router has not."""
        if not tls:
            return grpc.aio.insecure_channel(address, options=_OPTIONS)
        options = (*_OPTIONS, *CHANNEL_OPTIONS)
        return grpc.aio.secure_channel(address, self._known().channel(), options=options)

    def _known(self) -> Credentials:
        if self._credentials is None:
            if self._folder is None:
                raise CredentialsError(
                    "this router has no certificate: start it with --credentials"
                )
            self._credentials = Credentials.load(self._folder)
        return self._credentials
