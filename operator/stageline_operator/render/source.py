"""Where a pod finds the checkpoint: from the address in the spec to volumes and an address inside.

A claim and a folder of the node are mounted read-only; what comes over the network goes into an
emptyDir, with credentials from the Secret that the spec names.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass

from stageline_api.rendering import RenderError
from stageline_api.spec import ModelSpec
from stageline_operator.kinds import Object
from stageline_operator.settings import RenderSettings

MODEL_FOLDER = "/var/run/stageline/model"
CACHE_FOLDER = "/var/cache/stageline"
REFUSED = "ModelSourceRefused"


@dataclass(frozen=True, slots=True)
class Source:
    """A checkpoint, as the container of a pod sees it."""

    uri: str
    volumes: tuple[Object, ...]
    mounts: tuple[Object, ...]
    env: tuple[Object, ...] = ()
    env_from: tuple[Object, ...] = ()


def model_source(name: str, model: ModelSpec, settings: RenderSettings) -> Source:
    """Where pods of the resource `name` find its model; RenderError when they cannot."""
    scheme, _, rest = model.uri.partition("://")
    if scheme == "pvc":
        return _claim(model, rest)
    if scheme == "file":
        return _host_folder(name, model, rest, settings)
    if scheme == "hf":
        return _download(model)
    raise RenderError(
        f"spec.model.uri {model.uri} of {name}: {scheme}:// is not in this version, "
        "use hf:// or pvc://"
    )


def _claim(model: ModelSpec, rest: str) -> Source:
    claim, _, folder = rest.partition("/")
    volume = {"persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
    uri = f"file://{posixpath.join(MODEL_FOLDER, folder).rstrip('/')}"
    return _mounted(uri, volume, MODEL_FOLDER, model)


def _host_folder(name: str, model: ModelSpec, path: str, settings: RenderSettings) -> Source:
    start = f"spec.model.uri {model.uri} of {name}"
    if not settings.allow_host_path:
        raise RenderError(
            f"{start}: this operator mounts no folder of a node, use pvc:// or hf://, or start it "
            "with --allow-host-path",
            REFUSED,
        )
    folder = posixpath.normpath(path)
    if not folder.startswith("/") or folder in ("/", "//") or ":" in folder:
        raise RenderError(
            f"{start} is no folder that can be mounted: write its whole path, file:///folder",
            REFUSED,
        )
    folder = f"/{folder.lstrip('/')}"
    volume = {"hostPath": {"path": folder, "type": "Directory"}}
    return _mounted(f"file://{folder}", volume, folder, model)


def _download(model: ModelSpec) -> Source:
    return Source(
        uri=model.uri,
        volumes=({"name": "cache", "emptyDir": {}},),
        mounts=({"name": "cache", "mountPath": CACHE_FOLDER},),
        env=({"name": "HF_HOME", "value": f"{CACHE_FOLDER}/huggingface"},),
        env_from=_secret(model),
    )


def _mounted(uri: str, volume: Object, folder: str, model: ModelSpec) -> Source:
    return Source(
        uri=uri,
        volumes=({"name": "model", **volume},),
        mounts=({"name": "model", "mountPath": folder, "readOnly": True},),
        env_from=_secret(model),
    )


def _secret(model: ModelSpec) -> tuple[Object, ...]:
    if model.secret_name is None:
        return ()
    return ({"secretRef": {"name": model.secret_name}},)
