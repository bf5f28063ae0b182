"""Protobuf, which kubectl uses for `create secret` and its like: the few kinds that it does so.

Kubernetes' envelope is the four bytes `k8s\\0` and a message `Unknown` (apimachinery,
runtime/generated.proto); field numbers are those of k8s.io/api's generated.proto.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, NamedTuple

from stageline_local.apiserver.errors import bad_request
from stageline_local.apiserver.kinds import Object

CONTENT_TYPE: Final = "application/vnd.kubernetes.protobuf"
_MAGIC: Final = b"k8s\x00"


class _Field(NamedTuple):
    name: str
    kind: Literal["text", "texts", "number", "bool", "map", "bytes map", "message"]
    inside: Mapping[int, _Field] | None = None


_META: Final = {
    1: _Field("name", "text"),
    2: _Field("generateName", "text"),
    3: _Field("namespace", "text"),
    11: _Field("labels", "map"),
    12: _Field("annotations", "map"),
    14: _Field("finalizers", "texts"),
}
_METADATA: Final = _Field("metadata", "message", _META)
_KINDS: Final[Mapping[str, Mapping[int, _Field]]] = {
    "ConfigMap": {
        1: _METADATA,
        2: _Field("data", "map"),
        3: _Field("binaryData", "bytes map"),
        4: _Field("immutable", "bool"),
    },
    "Secret": {
        1: _METADATA,
        2: _Field("data", "bytes map"),
        3: _Field("type", "text"),
        4: _Field("stringData", "map"),
        5: _Field("immutable", "bool"),
    },
    "Namespace": {1: _METADATA},
    "Eviction": {
        1: _METADATA,
        2: _Field("deleteOptions", "message", {1: _Field("gracePeriodSeconds", "number")}),
    },
    "ServiceAccount": {1: _METADATA, 4: _Field("automountServiceAccountToken", "bool")},
}
_ENVELOPE: Final = {
    1: _Field("type", "message", {1: _Field("apiVersion", "text"), 2: _Field("kind", "text")})
}


def decoded(body: bytes) -> Object | None:
    """The object in `body`; None for kinds that we have no numbers for. Refusal (400) if broken."""
    if not body.startswith(_MAGIC):
        raise bad_request("the body is not Kubernetes' protobuf: it begins with other bytes")
    try:
        envelope = dict(_fields(body[len(_MAGIC) :]))
        head = _message(_ENVELOPE, body[len(_MAGIC) :])["type"]
        numbers = _KINDS.get(head["kind"])
        if numbers is None:
            return None
        return {**head, **_message(numbers, envelope[2])}
    except (IndexError, KeyError, TypeError, ValueError):
        raise bad_request("the body is not Kubernetes' protobuf: it breaks off") from None


def _message(numbers: Mapping[int, _Field], data: bytes) -> Object:
    result: Object = {}
    for number, value in _fields(data):
        if field := numbers.get(number):
            _put(result, field, value)
    return result


def _put(result: Object, field: _Field, value: Any) -> None:
    match field.kind:
        case "text":
            if text := value.decode():  # Go writes what is empty as well
                result[field.name] = text
        case "texts":
            result.setdefault(field.name, []).append(value.decode())
        case "number":
            result[field.name] = value
        case "bool":
            result[field.name] = bool(value)
        case "message":
            result[field.name] = _message(field.inside or {}, value)
        case _:
            entry = dict(_fields(value))
            content = entry.get(2, b"")
            is_text = field.kind == "map"
            shown = content.decode() if is_text else base64.b64encode(content).decode()
            result.setdefault(field.name, {})[entry.get(1, b"").decode()] = shown


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Number and value of each field: a number, or bytes."""
    place = 0
    while place < len(data):
        tag, place = _varint(data, place)
        match tag & 7:
            case 0:
                value, place = _varint(data, place)
                yield tag >> 3, value
            case 2:
                length, place = _varint(data, place)
                if place + length > len(data):
                    raise ValueError("a field is longer than its message")
                yield tag >> 3, data[place : place + length]
                place += length
            case 1 | 5 as width:
                place += 8 if width == 1 else 4
            case _:
                raise ValueError("a field of no known type")


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
