"""A container's environment, and the variables in its command: pure.

Kubernetes' rules: `$(NAME)` is replaced where NAME is defined before and left alone where it is
not; `$$` is one `$`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from stageline_local.client import Object
from stageline_local.kubelet.refusals import ConfigError
from stageline_local.kubelet.sources import Sources

_REFERENCE: Final = re.compile(r"\$(?:\$|\(([^)]*)\))")
_MAP_FIELD: Final = re.compile(r"metadata\.(labels|annotations)\['([^']*)'\]")
_NAME: Final = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Put the variables in."""

    def value(match: re.Match[str]) -> str:
        name = match[1]
        return "$" if name is None else variables.get(name, match[0])

    return _REFERENCE.sub(value, text)


def field_value(pod: Object, address: str, host_address: str, path: str) -> str:
    """What a fieldRef means; ConfigError when there is no such field."""
    metadata, spec = pod["metadata"], pod["spec"]
    if match := _MAP_FIELD.fullmatch(path):
        return str((metadata.get(match[1]) or {}).get(match[2], ""))
    fields: dict[str, Callable[[], str]] = {
        "metadata.name": lambda: metadata["name"],
        "metadata.namespace": lambda: metadata["namespace"],
        "metadata.uid": lambda: metadata["uid"],
        "spec.nodeName": lambda: spec.get("nodeName", ""),
        "spec.serviceAccountName": lambda: spec.get("serviceAccountName", ""),
        "status.podIP": lambda: address,
        "status.podIPs": lambda: address,
        "status.hostIP": lambda: host_address,
    }
    if path not in fields:
        raise ConfigError(f"a pod that is a process has no field {path}")
    return fields[path]()


def environment(
    container: Object, namespace: str, field: Callable[[str], str], sources: Sources
) -> dict[str, str]:
    """The variables of `envFrom`, then those of `env`, in order; ConfigError says what is absent.

    `field` gives the value of a fieldRef's path.
    """
    found: dict[str, str] = {}
    for source in container.get("envFrom") or ():
        found |= _all_of(source, namespace, sources)
    for variable in container.get("env") or ():
        name, origin = variable["name"], variable.get("valueFrom")
        if origin is None:
            found[name] = expand(variable.get("value") or "", found)
        elif (value := _referred(origin, namespace, field, sources)) is not None:
            found[name] = value
    return found


def _all_of(source: Object, namespace: str, sources: Sources) -> dict[str, str]:
    if "configMapRef" in source:
        data = sources.config_map(namespace, source["configMapRef"])
    else:
        data = sources.secret(namespace, source["secretRef"])
    named = {f"{source.get('prefix', '')}{name}": value for name, value in data.items()}
    return {name: _text(value) for name, value in named.items() if _NAME.fullmatch(name)}


def _referred(
    origin: Object, namespace: str, field: Callable[[str], str], sources: Sources
) -> str | None:
    if reference := origin.get("fieldRef"):
        return field(reference["fieldPath"])
    if reference := origin.get("configMapKeyRef"):
        kind, data = "ConfigMap", sources.config_map(namespace, reference)
    elif reference := origin.get("secretKeyRef"):
        kind, data = "Secret", sources.secret(namespace, reference)
    else:
        raise ConfigError(f"a pod that is a process knows no valueFrom of {', '.join(origin)}")
    if reference["key"] in data:
        return _text(data[reference["key"]])
    if reference.get("optional"):
        return None
    raise ConfigError(
        f"couldn't find key {reference['key']} in {kind} {namespace}/{reference['name']}"
    )


def _text(value: bytes) -> str:
    return value.decode(errors="surrogateescape")
