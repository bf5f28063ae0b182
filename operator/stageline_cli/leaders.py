"""Where the leader of a resource is, and what to show it: read from the API server."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from stageline_cli.apiserver import NotFoundError
from stageline_cli.failure import Failure
from stageline_operator.labels import OWNER, STAGE
from stageline_operator.names import certificate

_PORT = "grpc"

Object = dict[str, Any]


class Reader(Protocol):
    """Gets objects; `stageline_cli.apiserver.ApiReader` does."""

    def get(self, path: str, **query: str) -> Object: ...


@dataclass(frozen=True, slots=True)
class Leader:
    """`files` are the routers' certificate by name; none where stages speak no TLS."""

    pod: str
    address: str
    files: dict[str, bytes]

    @contextmanager
    def credentials(self) -> Iterator[Path | None]:
        """The files in a folder that nobody else may read, while this lasts."""
        if not self.files:
            yield None
            return
        with TemporaryDirectory(prefix="stageline-") as folder:
            for name, content in self.files.items():
                (Path(folder) / name).write_bytes(content)
            yield Path(folder)


def find_leader(reader: Reader, namespace: str, name: str) -> Leader:
    """The leader of the first pipeline that has one running; Failure when there is none."""
    core = f"/api/v1/namespaces/{namespace}"
    pods = reader.get(f"{core}/pods", labelSelector=f"{OWNER}={name},{STAGE}=0").get("items") or []
    running = [pod for pod in pods if pod["status"].get("phase") == "Running"]
    if not running:
        raise Failure(
            f"no stage 0 of {name} runs in namespace {namespace}: `stageline status {name}` says "
            "why"
        )
    pod = min(running, key=lambda pod: pod["metadata"]["name"])
    ports = {port["name"]: port["containerPort"] for port in pod["spec"]["containers"][0]["ports"]}
    address = f"{pod['status']['podIP']}:{ports[_PORT]}"
    return Leader(pod["metadata"]["name"], address, _files(reader, core, name))


def _files(reader: Reader, core: str, name: str) -> dict[str, bytes]:
    try:
        secret = reader.get(f"{core}/secrets/{certificate(name, 'router')}")
    except NotFoundError:
        return {}
    return {key: base64.b64decode(data) for key, data in (secret.get("data") or {}).items()}
