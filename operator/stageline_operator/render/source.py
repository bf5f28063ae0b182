"""Where a pod finds the checkpoint: from the address in the spec to volumes and an address inside.

A claim and a folder of the node are mounted read-only; what comes over the network is read straight
into memory, with credentials from the Secret that the spec names.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, replace

from stageline_api.rendering import RenderError
from stageline_api.spec import ModelSpec
from stageline_operator.kinds import Object
from stageline_operator.observed import RevisionRecord
from stageline_operator.render.metadata import owner
from stageline_operator.settings import RenderSettings

MODEL_FOLDER = "/var/run/stageline/model"
CACHE_FOLDER = "/var/run/stageline/cache"
REFUSED = "ModelSourceRefused"


@dataclass(frozen=True, slots=True)
class Source:
    """A checkpoint, as the container of a pod sees it."""

    uri: str
    volumes: tuple[Object, ...]
    mounts: tuple[Object, ...]
    env_from: tuple[Object, ...] = ()
    cache: str = ""
    """Folder that keeps what is downloaded; empty: nothing is kept."""


def record_source(resource: Object, record: RevisionRecord, settings: RenderSettings) -> Source:
    """Where pods of a revision find its model; RenderError when they cannot."""
    commit = record.profile.commit
    return model_source(owner(resource), record.spec.model, settings, commit)


def stage_source(resource: Object, record: RevisionRecord, settings: RenderSettings) -> Source:
    """The same for the pods of stages, which may keep what they download."""
    source = record_source(resource, record, settings)
    cache = record.spec.model.cache
    if cache is None:
        return source
    scheme, _, rest = cache.partition("://")
    claim, _, folder = rest.partition("/")
    volume: Object = {"persistentVolumeClaim": {"claimName": claim}}
    if scheme == "file":
        folder, volume = "", {"hostPath": {"path": rest, "type": "DirectoryOrCreate"}}
        if not settings.allow_host_path:
            raise RenderError(
                f"spec.model.cache {cache} of {owner(resource)}: this operator mounts no folder "
                "of a node, use pvc://, or start it with --allow-host-path",
                REFUSED,
            )
    return replace(
        source,
        volumes=({"name": "cache", **volume},),
        mounts=({"name": "cache", "mountPath": CACHE_FOLDER},),
        cache=posixpath.join(CACHE_FOLDER, folder).rstrip("/"),
    )


def model_source(name: str, model: ModelSpec, settings: RenderSettings, commit: str = "") -> Source:
    """Where pods of the resource `name` find its model; RenderError when they cannot.

    `commit` is what the address's revision stood for when the profile was taken.
    """
    scheme, _, rest = model.uri.partition("://")
    if scheme == "pvc":
        return _claim(model, rest)
    if scheme == "file":
        return _host_folder(name, model, rest, settings)
    # A branch may move, but all that reads a model for one revision reads the same one.
    uri = f"{model.uri.partition('@')[0]}@{commit}" if scheme == "hf" and commit else model.uri
    return Source(uri=uri, volumes=(), mounts=(), env_from=_secret(model))


def _claim(model: ModelSpec, rest: str) -> Source:
    claim, _, folder = rest.partition("/")
    volume = {"persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
    uri = f"file://{posixpath.join(MODEL_FOLDER, folder).rstrip('/')}"
    return _mounted(uri, volume, MODEL_FOLDER, model)


def _host_folder(name: str, model: ModelSpec, path: str, settings: RenderSettings) -> Source:
    start = f"spec.model.uri {model.uri} of {name}"
    if not settings.allow_host_path:
        raise RenderError(
            f"{start}: this operator mounts no folder of a node, use pvc://, hf:// or s3://, or "
            "start it with --allow-host-path",
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
