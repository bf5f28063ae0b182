"""Asking a container how it is, in the four ways of Kubernetes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping
from pathlib import Path

import aiohttp
import grpc.aio
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from stageline_local.client import Object
from stageline_local.kubelet.probes import Check, Probe

# Each check stands alone: no back-off of an earlier one, no proxy in between.
_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
)
_MOST_OUTPUT = 1 << 10


def checker(container: Object, address: str, env: Mapping[str, str], folder: Path | None) -> Check:
    """What asks a container that listens on `address`; `exec` runs with its `env`, in `folder`."""
    ports = {port["name"]: port["containerPort"] for port in container.get("ports") or ()
             if "name" in port}  # fmt: skip

    async def check(probe: Probe) -> str:
        try:
            async with asyncio.timeout(probe.timeout):
                return await ask(probe.action)
        except TimeoutError:
            return f"no answer within {probe.timeout:g} s"

    async def ask(action: Object) -> str:
        if grpc_action := action.get("grpc"):
            target = f"{address}:{grpc_action['port']}"
            return await _grpc(target, grpc_action.get("service") or "")
        if tcp := action.get("tcpSocket"):
            return await _tcp(tcp.get("host") or address, port(tcp["port"]))
        if http := action.get("httpGet"):
            return await _http(http, http.get("host") or address, port(http["port"]))
        return await _exec(action["exec"]["command"], env, folder)

    def port(asked: int | str) -> int:
        return int(ports.get(asked, asked)) if isinstance(asked, str) else asked

    return check


async def _grpc(target: str, service: str) -> str:
    async with grpc.aio.insecure_channel(target, options=_OPTIONS) as channel:
        call = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=HealthCheckRequest.SerializeToString,
            response_deserializer=HealthCheckResponse.FromString,
        )
        try:
            answer = await call(HealthCheckRequest(service=service))
        except grpc.aio.AioRpcError as error:
            return f"{target}: {error.details() or error.code().name}"
    if answer.status == HealthCheckResponse.SERVING:
        return ""
    status = HealthCheckResponse.ServingStatus.Name(answer.status)
    return f'service unhealthy (responded with "{status}")'


async def _tcp(host: str, port: int) -> str:
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError as error:
        return f"dial tcp {host}:{port}: {error.strerror or error}"
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return ""


async def _http(action: Object, host: str, port: int) -> str:
    url = f"{action.get('scheme', 'HTTP').lower()}://{host}:{port}{action.get('path') or '/'}"
    headers = {header["name"]: header["value"] for header in action.get("httpHeaders") or ()}
    try:
        # A certificate of one's own is no illness: Kubernetes does not verify it either.
        async with (
            aiohttp.ClientSession() as session,
            session.get(url, headers=headers, ssl=False, allow_redirects=False) as response,
        ):
            healthy = 200 <= response.status < 400
    except (aiohttp.ClientError, OSError) as error:
        return f"Get {url}: {error}"
    return "" if healthy else f"HTTP probe failed with statuscode: {response.status}"


async def _exec(command: list[str], env: Mapping[str, str], folder: Path | None) -> str:
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, **env},
            cwd=folder,
            start_new_session=True,
        )
    except OSError as error:
        return f"cannot run {command[0]}: {error.strerror or error}"
    try:
        output, _ = await process.communicate()
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.communicate()  # to its end, when this was cancelled half way
    said = output[:_MOST_OUTPUT].decode(errors="replace").strip()
    return "" if process.returncode == 0 else said or f"exit code {process.returncode}"
