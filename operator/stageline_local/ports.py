"""Loopback ports that a process can have again after a restart.

They lie outside the range from which the system takes ports for outgoing connections. A free port
of that range may be anyone's by the time the process comes back, even its own caller's: a dial to a
port on which nobody listens can meet itself there.
"""

from __future__ import annotations

import random
import socket
from pathlib import Path

LOOPBACK = "127.0.0.1"
_FIRST = 20_000
_LAST = 32_767
_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


class PortTaken(Exception):
    """Somebody listens on a port that was asked for; the message is a sentence."""


def free_ports(count: int, but: int = 0) -> tuple[int, ...]:
    """Choose `count` different ports on loopback on which nobody listens now, `but` not."""
    outgoing = _outgoing()
    candidates = [port for port in range(_FIRST, _LAST) if port not in outgoing and port != but]
    random.shuffle(candidates)
    found: list[int] = []
    for port in candidates:
        if len(found) == count:
            break
        if _is_free(port):
            found.append(port)
    if len(found) < count:
        raise PortTaken(f"no {count} free ports between {_FIRST} and {_LAST} on {LOOPBACK}")
    return tuple(found)


def require_free(port: int) -> None:
    """Raise PortTaken, with a way out, when somebody listens on this loopback port."""
    if not _is_free(port):
        raise PortTaken(
            f"port {port} of {LOOPBACK} is taken: stop what listens there, or choose another port "
            "with --port"
        )


def _outgoing() -> range:
    try:
        low, high = map(int, _RANGE.read_text().split())
    except (OSError, ValueError):  # not Linux: the range that the registry of ports names
        return range(49_152, 65_536)
    ours = range(_FIRST, _LAST)
    return range(low, high + 1) if low > ours.start or high < ours.stop - 1 else range(0)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As a server binds: connections of an earlier server that linger do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
