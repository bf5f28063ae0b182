"""Label and field selectors: text in, a predicate out."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from stageline_local.apiserver.errors import bad_request
from stageline_local.apiserver.kinds import Kind, Object

Labels = Mapping[str, str]
Matches = Callable[[Object], bool]

_SET: Final = re.compile(r"(?P<key>\S+)\s+(?P<how>in|notin)\s+\((?P<values>[^()]*)\)")
_EQUAL: Final = re.compile(r"(?P<key>[^\s!=<>]+)\s*(?P<how>==|=|!=|<|>)\s*(?P<value>[^\s!=<>]*)")
_PRESENT: Final = re.compile(r"(?P<absent>!?)\s*(?P<key>[^\s!=<>(),]+)")
_COMMAS: Final = re.compile(r",(?![^()]*\))")
_FIELDS: Final = {
    "pods": (
        *("spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName"),
        *("spec.hostNetwork", "status.phase", "status.podIP", "status.nominatedNodeName"),
    ),
    "events": (
        *("involvedObject.kind", "involvedObject.namespace", "involvedObject.name"),
        *("involvedObject.uid", "involvedObject.apiVersion", "involvedObject.resourceVersion"),
        *("involvedObject.fieldPath", "reason", "reportingComponent", "source", "type"),
    ),
    "nodes": ("spec.unschedulable",),
    "namespaces": ("status.phase",),
    "secrets": ("type",),
    "services": ("spec.clusterIP", "spec.type"),
    "replicasets": ("status.replicas",),
}
_RENAMED: Final = {  # events.k8s.io has other names for the same
    "regarding.": "involvedObject.",
    "reportingController": "reportingComponent",
}


def by_labels(selector: str) -> Callable[[Labels], bool]:
    """The predicate of a label selector; one that cannot be read is refused."""
    terms = [_label_term(term.strip()) for term in _COMMAS.split(selector) if term.strip()]
    return lambda labels: all(term(labels) for term in terms)


def _label_term(term: str) -> Callable[[Labels], bool]:
    if found := _SET.fullmatch(term):
        key, wanted = found["key"], {value.strip() for value in found["values"].split(",")}
        if found["how"] == "in":
            return lambda labels: key in labels and labels[key] in wanted
        return lambda labels: labels.get(key) not in wanted
    if found := _EQUAL.fullmatch(term):
        return _comparison(found["key"], found["how"], found["value"])
    if found := _PRESENT.fullmatch(term):
        key, present = found["key"], not found["absent"]
        return lambda labels: (key in labels) == present
    words = term.split()
    found_word = words[1] if len(words) > 1 else term
    raise bad_request(
        f"unable to parse requirement: found '{found_word}', expected: in, notin, =, ==, !=, gt, lt"
    )


def _comparison(key: str, how: str, value: str) -> Callable[[Labels], bool]:
    if how in ("=", "=="):
        return lambda labels: labels.get(key) == value
    if how == "!=":
        return lambda labels: labels.get(key) != value
    if not re.fullmatch(r"-?[0-9]+", value):
        raise bad_request("for 'Gt', 'Lt' operators, the value must be an integer")
    sign = 1 if how == ">" else -1
    return lambda labels: (
        re.fullmatch(r"-?[0-9]+", labels.get(key, "")) is not None
        and sign * (int(labels[key]) - int(value)) > 0
    )


def by_fields(selector: str, kind: Kind) -> Matches:
    """The predicate of a field selector; a field that the kind is not indexed by is refused."""
    terms = []
    for text in filter(None, selector.split(",")):
        found = re.fullmatch(r"([^=!]+)(==|=|!=)(.*)", text)
        if found is None:
            raise bad_request(f"invalid selector: '{text}'; can't understand '{text}'")
        field, how, value = found.groups()
        path = _path(field, kind)
        terms.append((path, value, how != "!="))
    return lambda obj: all((_text(obj, path) == value) == same for path, value, same in terms)


def _path(field: str, kind: Kind) -> tuple[str, ...]:
    stored = field
    for other, name in _RENAMED.items():
        if kind.plural == "events" and field.startswith(other):
            stored = name + field.removeprefix(other)
    allowed = ("metadata.name", "metadata.namespace", *_FIELDS.get(kind.plural, ()))
    if stored not in allowed:
        raise bad_request(f"field label not supported: {field}")
    return tuple(stored.split("."))


def _text(obj: Object, path: tuple[str, ...]) -> str:
    value: object = obj
    for part in path:
        value = value.get(part) if isinstance(value, dict) else None
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)
