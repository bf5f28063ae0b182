"""The two API servers on which the operator's tests run: our double, and Kubernetes' own.

Kubernetes' own (kube-apiserver and etcd) comes from the folder that $KUBEBUILDER_ASSETS names, as
setup-envtest lays it out; without it, tests on it are skipped.
"""

import os
import secrets
import signal
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pytest

from stageline_local.apiserver import ApiServer, served

ASSETS = os.environ.get("KUBEBUILDER_ASSETS", "")
NOT_HERE = "a real kube-apiserver needs KUBEBUILDER_ASSETS"
_START_SECONDS = 60.0


@dataclass(frozen=True)
class Server:
    """Where an API server is, and how to be let in."""

    url: str
    token: str = ""
    ca_file: str = ""


class DoubleServer:
    """Our own API server, in a thread."""

    def __init__(self, api: ApiServer) -> None:
        self._api = api
        self.server = Server(api.url)

    def restart(self) -> None:
        """Every connection breaks; what it holds is kept."""
        self._api.restart()


class RealServer:
    """etcd and kube-apiserver in a folder of their own; no nodes, no controllers."""

    def __init__(self, folder: Path, assets: str = ASSETS) -> None:
        self._folder = folder
        self._assets = Path(assets)
        self._etcd_port, self._port = free_port(), free_port()
        self._processes: list[subprocess.Popen[bytes]] = []
        self.server = Server(
            f"https://127.0.0.1:{self._port}",
            secrets.token_hex(16),
            str(folder / "certificates" / "apiserver.crt"),
        )

    def __enter__(self) -> Self:
        """Start it, or leave out the test that asks for it."""
        if not ASSETS:
            pytest.skip(NOT_HERE)
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Come back when the server answers /readyz; AssertionError with its log otherwise."""
        (self._folder / "certificates").mkdir(exist_ok=True)
        (self._folder / "tokens.csv").write_text(f"{self.server.token},admin,1,system:masters\n")
        if not (self._folder / "key").exists():
            command = ["openssl", "genrsa", "-out", str(self._folder / "key"), "2048"]
            subprocess.run(command, check=True, capture_output=True)
        self._run("etcd", self._etcd_arguments())
        self._start_api()

    def _start_api(self) -> None:
        self._run("kube-apiserver", self._api_arguments())
        deadline = time.monotonic() + _START_SECONDS
        while not self._ready():
            assert self._processes[-1].poll() is None, f"no API server:\n{self._log()}"
            assert time.monotonic() < deadline, f"no API server in time:\n{self._log()}"
            time.sleep(0.05)

    def restart(self) -> None:
        """The API server dies as under kill -9 and comes back; etcd has kept everything."""
        self._end(self._processes.pop(), signal.SIGKILL)
        self._start_api()

    def stop(self) -> None:
        """Leave no process behind."""
        for process in reversed(self._processes):
            self._end(process, signal.SIGKILL)

    def _run(self, program: str, arguments: list[str]) -> None:
        with (self._folder / f"{program}.log").open("ab") as log:
            self._processes.append(
                subprocess.Popen(
                    [str(self._assets / program), *arguments], stdout=log, stderr=log, cwd="/"
                )
            )

    def _etcd_arguments(self) -> list[str]:
        url = f"http://127.0.0.1:{self._etcd_port}"
        return [
            f"--data-dir={self._folder / 'etcd'}", f"--listen-client-urls={url}",
            f"--advertise-client-urls={url}", "--listen-peer-urls=http://127.0.0.1:0",
            "--unsafe-no-fsync",
        ]  # fmt: skip

    def _api_arguments(self) -> list[str]:
        key = self._folder / "key"
        return [
            f"--etcd-servers=http://127.0.0.1:{self._etcd_port}", "--bind-address=127.0.0.1",
            f"--secure-port={self._port}", f"--cert-dir={self._folder / 'certificates'}",
            f"--token-auth-file={self._folder / 'tokens.csv'}", "--authorization-mode=RBAC",
            "--service-account-issuer=https://localhost", f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}", "--service-cluster-ip-range=10.0.0.0/24",
            "--disable-admission-plugins=ServiceAccount", "--profiling=false",
            "--shutdown-delay-duration=0", "--endpoint-reconciler-type=none",
        ]  # fmt: skip

    def _ready(self) -> bool:
        request = urllib.request.Request(
            f"{self.server.url}/readyz", headers={"Authorization": f"Bearer {self.server.token}"}
        )
        try:
            context = ssl.create_default_context(cafile=self.server.ca_file)
            with urllib.request.urlopen(request, timeout=2, context=context) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.HTTPError):
            return False

    def _log(self) -> str:
        return (self._folder / "kube-apiserver.log").read_text()[-4000:]

    @staticmethod
    def _end(process: subprocess.Popen[bytes], number: int) -> None:
        process.send_signal(number)
        process.wait(10)


@contextmanager
def one_of(request: pytest.FixtureRequest, alone: Path | None = None) -> Iterator[Server]:
    """What the fixture's parameter names: a `double` of its own, or the `real` one of all tests.

    Who leaves Leases or serves all namespaces has the real one `alone`, with its files there.
    """
    if request.param == "double":
        with served() as api:
            yield DoubleServer(api).server
    elif alone is not None:
        with RealServer(alone) as real:
            yield real.server
    else:
        yield request.getfixturevalue("real_server").server


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
