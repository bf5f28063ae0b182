"""Ports, the state folder, and what is started from it."""

import fcntl
import os
import socket
from pathlib import Path

import pytest

from stageline_api.documents import RouterDocument, StageDocument
from stageline_local.layout import process_specs, threads
from stageline_local.ports import PortTaken, free_ports, require_free
from stageline_local.statedir import StateDir, StateDirError
from support.layouts import layout


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


def test_each_process_is_started_with_its_own_document(tmp_path):
    made = layout(pipelines=2)
    with StateDir(tmp_path, "m") as state:
        specs = process_specs(made, state)
    assert [spec.name for spec in specs] == [
        *(f"m-{pipeline}-stage-{stage}" for pipeline in (0, 1) for stage in (0, 1, 2)),
        "m-router",
    ]
    for spec, document in zip(specs, (d for p in made.pipelines for d in p.stages), strict=False):
        assert spec.command[1:4] == ("-m", "stageline_worker", "stage")
        text = Path(spec.command[-1]).read_text()
        assert StageDocument.model_validate_json(text) == document
        assert spec.log == tmp_path / "m" / "logs" / f"{spec.name}.log"
    assert specs[-1].command[1:3] == ("-m", "stageline_router")
    text = Path(specs[-1].command[-1]).read_text()
    assert RouterDocument.model_validate_json(text) == made.router


@pytest.mark.parametrize(
    ("environment", "cores", "stages", "expected"),
    [
        ({}, 8, 3, {"OMP_NUM_THREADS": "2"}),
        ({}, 2, 6, {"OMP_NUM_THREADS": "1"}),
        ({"OMP_NUM_THREADS": "5"}, 8, 3, {}),
    ],
)
def test_stages_share_the_cores_unless_the_user_chose(environment, cores, stages, expected):
    assert threads(environment, cores, stages) == expected
