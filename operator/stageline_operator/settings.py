"""What an operator is told when it starts: by flags, or by environment variables."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

_ENVIRONMENT: Final = "STAGELINE_"
_LARGEST_PORT: Final = 65535
_MOST_WORKERS: Final = 256
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("", "0", "false", "no", "off")
_LEVELS: Final = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True)
class RenderSettings:
    """What goes into the children beside the resource itself."""

    worker_image: str = "stageline-worker:latest"
    router_image: str = "stageline-router:latest"
    cluster_domain: str = "cluster.local"
    allow_host_path: bool = False
    """Whether file:// models may be mounted from the node."""


@dataclass(frozen=True, slots=True)
class Connection:
    """How to reach the API server; all empty: as a pod, else as kubectl would."""

    server: str = ""
    token_file: str = ""
    ca_file: str = ""
    kubeconfig: str = ""


@dataclass(frozen=True, slots=True)
class OperatorSettings:
    """All of it."""

    render: RenderSettings = field(default_factory=RenderSettings)
    connection: Connection = field(default_factory=Connection)
    namespaces: tuple[str, ...] = ()
    """Those that are served; none: all."""
    release: str = ""
    """By which it was installed, namespace/name: its replicas are no conflict; empty: none."""
    workers: int = 32
    """Resources that are reconciled at the same time."""
    health_host: str = "0.0.0.0"
    health_port: int = 8080
    """Of /healthz, /readyz and /metrics; 0: none of them."""
    log_format: Literal["text", "json"] = "text"
    log_level: str = "info"


def parse(arguments: Sequence[str], environ: Mapping[str, str]) -> OperatorSettings:
    """Read flags and environment. Exits with status 2 and a sentence when something is wrong."""
    parser = _parser(environ)
    told = parser.parse_args(arguments)
    namespaces = tuple(told.namespace or _split(environ.get(f"{_ENVIRONMENT}NAMESPACES", "")))
    if complaint := _complaint(told, namespaces):
        parser.error(complaint)
    return OperatorSettings(
        render=RenderSettings(
            told.worker_image, told.router_image, told.cluster_domain, told.allow_host_path
        ),
        connection=Connection(told.server, told.token_file, told.ca_file, told.kubeconfig),
        namespaces=namespaces,
        release=told.release,
        workers=told.workers,
        health_host=told.health_host,
        health_port=told.health_port,
        log_format=told.log_format,
        log_level=told.log_level,
    )


def _parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m stageline_operator",
        description="Turns PipelineDeployments into stage pods and a router, and keeps them so.",
        epilog="Every flag can also be given as an environment variable, --worker-image as "
        "STAGELINE_WORKER_IMAGE and so on; --namespace as STAGELINE_NAMESPACES, with commas.",
        allow_abbrev=False,
    )
    defaults = OperatorSettings()

    def flag(name: str, default: object, help_: str, **more: Any) -> None:
        value = environ.get(_ENVIRONMENT + name.removeprefix("--").replace("-", "_").upper())
        shown = f" (default: {default})" if default not in ("", False) else ""
        chosen = default if value is None else value
        parser.add_argument(name, default=chosen, help=help_ + shown, **more)

    render = defaults.render
    parser.add_argument(
        "--namespace", action="append", metavar="NAME",
        help="serve this namespace only; may be repeated (default: all namespaces)",
    )  # fmt: skip
    flag("--release", "", "namespace/name of the Helm release that this operator belongs to")
    flag("--worker-image", render.worker_image, "image of stage and profile pods")
    flag("--router-image", render.router_image, "image of router pods")
    flag("--cluster-domain", render.cluster_domain, "domain of the cluster's DNS names")
    flag(
        "--allow-host-path", False, "mount file:// models from the node: whoever may make a "
        "PipelineDeployment can then read any folder of any node",
        nargs="?", const="true", type=_truth, metavar="true|false",
    )  # fmt: skip
    flag("--server", "", "URL of the API server (default: as a pod, else as kubectl would)")
    flag("--token-file", "", "file with the bearer token for --server")
    flag("--ca-file", "", "certificate authority of --server")
    flag("--kubeconfig", "", "kubeconfig to use")
    flag("--workers", defaults.workers, "resources reconciled at the same time", type=int)
    flag("--health-host", defaults.health_host, "address for --health-port")
    flag(
        "--health-port", defaults.health_port, "port of /healthz, /readyz and /metrics; 0: none",
        type=int,
    )  # fmt: skip
    flag("--log-format", defaults.log_format, "text or json", choices=("text", "json"))
    flag("--log-level", defaults.log_level, "least severe line to log", choices=_LEVELS)
    return parser


def _complaint(told: argparse.Namespace, namespaces: tuple[str, ...]) -> str | None:
    """What is wrong with what was told, and what to do about it; None when nothing is."""
    wrong = [
        name for name in namespaces if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name)
    ]
    if wrong:
        return f"{wrong[0]!r} can be no namespace: names are lower case letters, digits and '-'"
    if not re.fullmatch(r"([-a-z0-9.]+/[-a-z0-9.]+)?", told.release):
        return f"--release {told.release!r} must be the namespace and the name of one, with a '/'"
    if told.server and not re.match(r"https?://[^/]", told.server):
        return f"--server {told.server!r} must begin with http:// or https:// and name a host"
    if (told.token_file or told.ca_file) and not told.server:
        return "--token-file and --ca-file belong to --server: give --server too, or neither"
    if told.server and told.kubeconfig:
        return "--server and --kubeconfig both say where the API server is: give one of them"
    if not 1 <= told.workers <= _MOST_WORKERS:
        return f"--workers {told.workers} must be from 1 to {_MOST_WORKERS}"
    if not 0 <= told.health_port <= _LARGEST_PORT:
        return f"--health-port {told.health_port} must be from 0 to {_LARGEST_PORT}"
    return _missing_file(told)


def _missing_file(told: argparse.Namespace) -> str | None:
    for flag in ("token_file", "ca_file", "kubeconfig"):
        path = getattr(told, flag)
        if path and not Path(path).is_file():
            return f"--{flag.replace('_', '-')} {path} is no file"
    return None


def _truth(text: str) -> bool:
    if text.lower() in _TRUE + _FALSE:
        return text.lower() in _TRUE
    raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
