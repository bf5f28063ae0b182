"""host:port as gRPC reads it."""

from __future__ import annotations


def bracketed(address: str) -> str:
    """`address` with its host in brackets where that is an IPv6 address without them.

    Kubernetes expands "$(POD_IP):7070" to fd00::7:7070, which nobody can take apart but by knowing
    that a port is there.
    """
    host, _, port = address.rpartition(":")
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else address
