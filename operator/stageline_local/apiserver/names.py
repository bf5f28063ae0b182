"""What metadata may hold: names as each kind wants them, labels, owners."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from stageline_local.apiserver.errors import Problem, shown
from stageline_local.apiserver.kinds import Kind, Object


class NameRule(NamedTuple):
    """A shape of names, and how Kubernetes puts it."""

    pattern: str
    longest: int
    sentence: str

    def problems(self, text: str) -> list[str]:
        """What is wrong with `text`, without the field."""
        found = []
        if len(text) > self.longest:
            found.append(f"must be no more than {self.longest} bytes")
        if not re.fullmatch(self.pattern, text):
            found.append(f"{self.sentence}, regex used for validation is '{self.pattern}')")
        return found


SUBDOMAIN: Final = NameRule(
    r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*",
    253,
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or "
    "'.', and must start and end with an alphanumeric character (e.g. 'example.com'",
)
LABEL: Final = NameRule(
    r"[a-z0-9]([-a-z0-9]*[a-z0-9])?",
    63,
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and "
    "must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc'",
)
SERVICE: Final = NameRule(
    r"[a-z]([-a-z0-9]*[a-z0-9])?",
    63,
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an "
    "alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123'",
)
LABEL_VALUE: Final = NameRule(
    r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?",
    63,
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or "
    "'.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or "
    "'my_value',  or '12345'",
)
LABEL_NAME: Final = NameRule(
    r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]",
    63,
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end "
    "with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc'",
)
_ANNOTATION_BYTES: Final = 256 * 1024
_OF_KIND: Final = {"services": SERVICE, "namespaces": LABEL}


def problems(kind: Kind, meta: Object) -> list[Problem]:
    """What is wrong with an object's metadata."""
    found = list(_name_problems(kind, meta))
    for key, value in meta.get("labels", {}).items():
        found += qualified_name_problems("metadata.labels", key)
        found += [
            Problem("metadata.labels", f"Invalid value: {shown(value)}: {wrong}")
            for wrong in LABEL_VALUE.problems(value)
        ]
    annotations = meta.get("annotations", {})
    for key in annotations:
        found += qualified_name_problems("metadata.annotations", key.lower())
    if sum(len(key) + len(value) for key, value in annotations.items()) > _ANNOTATION_BYTES:
        message = f"Too long: may not be more than {_ANNOTATION_BYTES} bytes"
        found.append(Problem("metadata.annotations", message, "FieldValueTooLong"))
    return found + list(_owner_problems(meta.get("ownerReferences", ())))


def _name_problems(kind: Kind, meta: Object) -> Iterator[Problem]:
    name = meta.get("name")
    if not name:
        message = "Required value: name or generateName is required"
        yield Problem("metadata.name", message, "FieldValueRequired")
        return
    for wrong in _OF_KIND.get(kind.plural, SUBDOMAIN).problems(name):
        yield Problem("metadata.name", f"Invalid value: {shown(name)}: {wrong}")


def qualified_name_problems(field: str, key: str) -> list[Problem]:
    """What is wrong with the key of a label, an annotation or a selector."""
    prefix, slash, name = key.rpartition("/")
    found = LABEL_NAME.problems(name)
    if slash:
        found += [f"prefix part {wrong}" for wrong in SUBDOMAIN.problems(prefix)]
    return [Problem(field, f"Invalid value: {shown(key)}: {wrong}") for wrong in found]


def _owner_problems(owners: Any) -> Iterator[Problem]:
    field = "metadata.ownerReferences"
    for owner in owners:
        for name in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(name):
                message = f"Invalid value: {shown(owner)}: {name} must not be empty"
                yield Problem(field, message)
    controllers = [
        f"{owner['kind']}/{owner['name']}" for owner in owners if owner.get("controller")
    ]
    if len(controllers) > 1:
        both = " and ".join(controllers[:2])
        yield Problem(
            field,
            f"Invalid value: {shown(owners)}: Only one reference can have Controller set to true. "
            f'Found "true" in references for {both}',
        )
