"""Ports, and the state folder."""

import fcntl
import os
import socket
import threading
from pathlib import Path

import pytest

from stageline_local.ports import PortTaken, free_ports, require_free
from stageline_local.statedir import StateDir, StateDirError, running


def test_ports_are_free_different_and_never_handed_out_for_outgoing_connections():
    ports = free_ports(40)
    assert len(set(ports)) == 40
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    assert not [port for port in ports if low <= port <= high]
    for port in ports:
        require_free(port)


@pytest.mark.parametrize(
    ("outgoing", "allowed"),
    [
        ("20100 60999", range(20_000, 20_100)),
        ("1024 65535", range(20_000, 32_767)),  # all of them: better one than none
        ("", range(20_000, 32_767)),
    ],
)
def test_ports_of_outgoing_connections_are_left_alone(tmp_path, monkeypatch, outgoing, allowed):
    (tmp_path / "range").write_text(outgoing)
    monkeypatch.setattr("stageline_local.ports._RANGE", tmp_path / "range")
    assert set(free_ports(30)) <= set(allowed)


def test_port_that_is_spoken_for_is_not_chosen(monkeypatch):
    monkeypatch.setattr("stageline_local.ports._FIRST", 20_000)
    monkeypatch.setattr("stageline_local.ports._LAST", 20_030)
    but = free_ports(1)[0]
    with pytest.raises(PortTaken, match="no 30 free ports between 20000 and 20030"):
        free_ports(30, but=but)


def test_taken_port_is_a_sentence():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortTaken, match=f"port {port} of 127.0.0.1 is taken: .* --port"):
            require_free(port)


def test_port_of_a_server_that_just_ended_is_free():
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as gRPC's servers do
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            accepted, _ = server.accept()
            accepted.close()  # this side closes first and lingers
    require_free(port)


def test_second_up_of_a_name_is_refused_and_the_next_one_is_not(tmp_path):
    with StateDir(tmp_path, "m"):
        with pytest.raises(StateDirError, match=rf"m is already up .* \(process {os.getpid()}\)"):
            StateDir(tmp_path, "m").__enter__()
        with StateDir(tmp_path, "other"):
            pass
    with StateDir(tmp_path, "m"):
        pass


def test_lock_is_not_inherited(tmp_path):
    with StateDir(tmp_path, "m") as state:
        flags = fcntl.fcntl(state._lock, fcntl.F_GETFD)
    assert flags & fcntl.FD_CLOEXEC, "a child would hold the lock when its supervisor is gone"


def test_folder_that_cannot_be_written_is_a_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StateDirError, match=r"cannot keep state in .*: Not a directory; .*--state"):
        StateDir(tmp_path / "file", "m").__enter__()


def test_running_ones_are_found_by_their_locks(tmp_path):
    with StateDir(tmp_path, "ended"), StateDir(tmp_path, "b"):
        pass
    with StateDir(tmp_path, "b"), StateDir(tmp_path, "a"):
        assert running(tmp_path) == [tmp_path / "a", tmp_path / "b"]
    assert running(tmp_path) == []
    assert running(tmp_path / "none") == []


def test_who_only_looks_does_not_keep_another_from_starting(tmp_path):
    with StateDir(tmp_path, "m"):
        pass
    look = os.open(tmp_path / "m" / "lock", os.O_RDONLY)
    fcntl.flock(look, fcntl.LOCK_SH)
    later = threading.Timer(0.05, os.close, [look])
    later.start()
    with StateDir(tmp_path, "m"):
        later.join()
