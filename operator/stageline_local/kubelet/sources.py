"""What pods refer to, as far as this kubelet has seen it."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass

from stageline_local.client import Object
from stageline_local.kubelet.refusals import ConfigError


@dataclass(frozen=True, slots=True)
class Sources:
    """The ConfigMaps and Secrets of the cluster, by namespace and name."""

    config_maps: Mapping[tuple[str, str], Object]
    secrets: Mapping[tuple[str, str], Object]

    def config_map(self, namespace: str, reference: Object) -> dict[str, bytes]:
        """The files or variables in it; ConfigError when it is not there and not optional."""
        obj = self.config_maps.get((namespace, reference["name"]))
        if obj is None:
            return _absent("configmap", reference)
        text = {name: value.encode() for name, value in (obj.get("data") or {}).items()}
        return text | _decoded(obj.get("binaryData"))

    def secret(self, namespace: str, reference: Object) -> dict[str, bytes]:
        """As `config_map`. `reference` names it `name` or, in a volume, `secretName`."""
        name = reference.get("name") or reference["secretName"]
        obj = self.secrets.get((namespace, name))
        if obj is None:
            return _absent("secret", {**reference, "name": name})
        return _decoded(obj.get("data"))


def _absent(what: str, reference: Object) -> dict[str, bytes]:
    if reference.get("optional"):
        return {}
    raise ConfigError(f'{what} "{reference["name"]}" not found')


def _decoded(data: Mapping[str, str] | None) -> dict[str, bytes]:
    return {name: base64.b64decode(value) for name, value in (data or {}).items()}
