"""Where an API server is and who we are to it: what a kubeconfig says, read as kubectl reads it.

Known: tokens, token files, client certificates, exec plugins that give a token. Anything else is
refused by name.

The `kubernetes` client has a loader as well. It takes 0.2 s to import, where all of a command of
ours takes 0.1 s; and what it does not know, or a plugin that fails, it passes over, so that the
command goes on as nobody and ends with the server's 401.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from stageline_cli.failure import Failure

_EXEC_SECONDS = 60.0
_DEFAULT = Path("~/.kube/config")
_KINDS = ("contexts", "clusters", "users")
_FOLDER = "(folder)"  # of the file that an entry comes from


@dataclass(frozen=True, slots=True)
class Access:
    """All that is needed to speak to one API server."""

    server: str
    namespace: str = "default"
    token: str = ""
    ca: str = ""
    """Certificates in PEM; empty trusts what the system trusts."""
    certificate: bytes = b""
    """Of the client, in PEM, with its key behind it."""
    insecure: bool = False
    """The server's certificate is not looked at."""


def kubeconfig_files(given: Path | None, environment: Mapping[str, str]) -> list[Path]:
    """Which files count: the one that is given, else $KUBECONFIG, else ~/.kube/config."""
    if given is not None:
        return [given]
    named = [Path(name) for name in environment.get("KUBECONFIG", "").split(os.pathsep) if name]
    return [path for path in named or [_DEFAULT.expanduser()] if path.exists()]


def read_access(files: Sequence[Path], context: str | None = None) -> Access:
    """The access that the files' current context, or this one, describes."""
    config = _merged(files)
    name = context or config["current-context"]
    if not name:
        raise Failure("the kubeconfig has no current context: name one with --context")
    chosen = _entry(config, "contexts", name)
    cluster = _entry(config, "clusters", chosen.get("cluster", ""))
    user = _entry(config, "users", chosen["user"]) if chosen.get("user") else {}
    if not cluster.get("server"):
        raise Failure(f"cluster {chosen.get('cluster')} of the kubeconfig has no server")
    if cluster.get("tls-server-name"):
        raise Failure(f"tls-server-name of cluster {chosen['cluster']} is not supported")
    return Access(
        server=str(cluster["server"]).rstrip("/"),
        namespace=chosen.get("namespace") or "default",
        token=_token(user, str(chosen.get("user"))),
        ca=_content(cluster, "certificate-authority").decode(),
        certificate=_certificate(user),
        insecure=bool(cluster.get("insecure-skip-tls-verify")),
    )


def _merged(files: Sequence[Path]) -> dict[str, Any]:
    """As kubectl merges: the first file that says something of a name is right."""
    merged: dict[str, Any] = {"current-context": "", **{kind: {} for kind in _KINDS}}
    for path in files:
        config = _read(path)
        merged["current-context"] = merged["current-context"] or config.get("current-context") or ""
        for kind in _KINDS:
            for entry in config.get(kind) or ():
                content = dict(entry.get(kind[:-1]) or {})
                merged[kind].setdefault(entry.get("name"), content | {_FOLDER: path.parent})
    return merged


def _read(path: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(path.read_text())
    except OSError as error:
        raise Failure(f"kubeconfig {path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise Failure(f"kubeconfig {path} is not YAML") from None
    if not isinstance(config, dict):
        raise Failure(f"kubeconfig {path} has no contexts")
    return config


def _entry(config: dict[str, Any], kind: str, name: str) -> dict[str, Any]:
    if name not in config[kind]:
        has = ", ".join(config[kind]) or "none"
        raise Failure(f"the kubeconfig has no {kind[:-1]} {name!r}; it has: {has}")
    return dict(config[kind][name])


def _content(entry: dict[str, Any], field: str) -> bytes:
    """What stands in FIELD-data, or in the file that FIELD names."""
    if entry.get(f"{field}-data"):
        return base64.b64decode(entry[f"{field}-data"])
    return _file(entry, field) if entry.get(field) else b""


def _file(entry: dict[str, Any], field: str) -> bytes:
    path = entry[_FOLDER] / entry[field]  # relative to the kubeconfig that names it
    try:
        return bytes(path.read_bytes())
    except OSError as error:
        raise Failure(f"{field} {path} of the kubeconfig: {error.strerror}") from None


def _certificate(user: dict[str, Any]) -> bytes:
    parts = [_content(user, field) for field in ("client-certificate", "client-key")]
    return b"\n".join(parts) if all(parts) else b""


def _token(user: dict[str, Any], name: str) -> str:
    if user.get("token"):
        return str(user["token"])
    if user.get("tokenFile"):
        return _file(user, "tokenFile").decode().strip()
    if user.get("exec"):
        return _from_plugin(user["exec"], name)
    for field in ("auth-provider", "username"):
        if user.get(field):
            raise Failure(
                f"user {name} of the kubeconfig signs in by {field}, which is not known here: use "
                "a token, a client certificate or an exec plugin"
            )
    return ""


def _from_plugin(plugin: dict[str, Any], name: str) -> str:
    """Run the credential plugin (client.authentication.k8s.io) and take its token."""
    command = [plugin.get("command", ""), *(plugin.get("args") or ())]
    info: dict[str, Any] = {
        "apiVersion": plugin.get("apiVersion"),
        "kind": "ExecCredential",
        "spec": {},
    }
    own = {entry["name"]: entry["value"] for entry in plugin.get("env") or ()}
    env = {**os.environ, "KUBERNETES_EXEC_INFO": json.dumps(info), **own}
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, timeout=_EXEC_SECONDS, check=True, env=env
        )
        return str(json.loads(done.stdout)["status"]["token"])
    except (OSError, subprocess.SubprocessError) as error:
        raise Failure(f"the credential plugin of user {name} failed: {error}") from None
    except (ValueError, KeyError, TypeError):
        raise Failure(f"the credential plugin of user {name} gave no token") from None
