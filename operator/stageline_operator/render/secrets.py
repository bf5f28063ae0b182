"""Secrets with certificates, and how a pod gets what is in a Secret."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

from stageline_operator import names
from stageline_operator.kinds import SECRET, Object
from stageline_operator.labels import ROUTER_COMPONENT, STAGE_COMPONENT
from stageline_operator.render.metadata import child, owner
from stageline_wire.roles import Role

FOLDER = "/var/run/stageline/tls"
"""Of the certificate by which a pod is known to the others of its deployment."""
_READABLE = 0o444  # a file is root's, and containers are not


def authority_secret(resource: Object, data: Mapping[str, bytes]) -> Object:
    """Holds the key that makes certificates. No pod ever mounts it."""
    return _secret(resource, names.authority(owner(resource)), STAGE_COMPONENT, data)


def certificate_secret(resource: Object, role: Role, data: Mapping[str, bytes]) -> Object:
    """What the pods of a role show, and whom they believe."""
    component = ROUTER_COMPONENT if role == "router" else STAGE_COMPONENT
    return _secret(resource, names.certificate(owner(resource), role), component, data)


def secret_data(secret: Object | None) -> dict[str, bytes] | None:
    """What a Secret holds, without what is no base64; None when there is none."""
    if secret is None:
        return None
    return {key: _decoded(text) for key, text in (secret.get("data") or {}).items()}


def volume(name: str, secret: str, *, optional: bool = False) -> Object:
    """A Secret as files. An optional one may come later, or never."""
    source: Object = {"secretName": secret, "defaultMode": _READABLE}
    return {"name": name, "secret": source | ({"optional": True} if optional else {})}


def mount(name: str, folder: str) -> Object:
    """Where a container has the files of a volume."""
    return {"name": name, "mountPath": folder, "readOnly": True}


def _secret(resource: Object, name: str, component: str, data: Mapping[str, bytes]) -> Object:
    encoded = {key: base64.b64encode(content).decode() for key, content in data.items()}
    return child(resource, SECRET, name, component, type="kubernetes.io/tls", data=encoded)


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError, TypeError):
        return b""
