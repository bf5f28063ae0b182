"""Where a stage's socket links are: derived from the address of its gRPC server. Pure.

The port is the one after gRPC's. On the same host there is a Unix socket too, in Linux's abstract
namespace: it has no file to leave behind, and it is of the pod's network, like a port.
"""

from __future__ import annotations


def split(address: str) -> tuple[str, int]:
    """Host without brackets, and port. Raises ValueError when there is none."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def socket_port(port: int) -> int:
    """The port of socket links to a stage whose gRPC server has `port`."""
    return port + 1


def unix_name(ip: str, port: int) -> str:
    """The name of the Unix socket beside ip:port of a gRPC server."""
    return f"\0stageline-link/{ip}/{port}"
