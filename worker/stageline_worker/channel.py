"""How this worker uses gRPC: the same options for every channel and server it makes."""

from __future__ import annotations

import ctypes

import grpc

from stageline_wire.credentials import CHANNEL_OPTIONS, Credentials

_ANY_SIZE = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # Pings reach a peer's process, not only its kernel: a stopped one is found without traffic.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
]
_CHANNEL = [
    *_ANY_SIZE,
    # A channel's own connection: links do not share one, nor the back-off of one that failed.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.enable_http_proxy", 0),
]
SERVER_OPTIONS = [
    *_ANY_SIZE,
    # Two servers on one port would each get half of the calls, silently.
    ("grpc.so_reuseport", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
]


def open_channel(address: str, credentials: Credentials | None = None) -> grpc.Channel:
    """A channel to a stage, with a connection of its own; in plaintext without credentials."""
    if credentials is None:
        return grpc.insecure_channel(address, options=_CHANNEL)
    options = [*_CHANNEL, *CHANNEL_OPTIONS]
    return grpc.secure_channel(address, credentials.channel(), options=options)


def keep_large_blocks() -> None:
    """Let malloc reuse large blocks instead of mapping new pages for each message.

    Worth x3.4 of throughput at 32 MiB. Without glibc it does nothing.
    """
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(mmap_threshold, 1 << 30)
    mallopt(trim_threshold, 1 << 30)
    mallopt(top_pad, 64 << 20)
