"""What the API server refuses, as Kubernetes' clients know it: a `Status` with code and reason."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from stageline_local.apiserver.kinds import Kind, Object

_MODIFIED = (
    "the object has been modified; please apply your changes to the latest version and try again"
)


class Problem(NamedTuple):
    """One thing that is wrong with one field."""

    field: str
    message: str
    reason: str = "FieldValueInvalid"


class Refusal(Exception):
    """An answer other than success: HTTP status, Kubernetes' word for it, and a sentence."""

    def __init__(self, code: int, reason: str, message: str, details: Object | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details

    def status(self) -> Object:
        """The body of the answer."""
        body: Object = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
        }
        if self.reason:
            body["reason"] = self.reason
        if self.details is not None:
            body["details"] = self.details
        return body | {"code": self.code}


def not_found(kind: Kind, name: str) -> Refusal:
    """No object of this name."""
    message = f'{kind.resource} "{name}" not found'
    return Refusal(404, "NotFound", message, _named(kind.group, kind.plural, name))


def no_such_path() -> Refusal:
    """No resource of this name."""
    message = "the server could not find the requested resource"
    return Refusal(404, "NotFound", message, {})


def already_exists(kind: Kind, name: str) -> Refusal:
    """There is such an object already."""
    message = f'{kind.resource} "{name}" already exists'
    return Refusal(409, "AlreadyExists", message, _named(kind.group, kind.plural, name))


def conflict(kind: Kind, name: str, why: str = _MODIFIED) -> Refusal:
    """The object is not what the client takes it to be."""
    message = f'Operation cannot be fulfilled on {kind.resource} "{name}": {why}'
    return Refusal(409, "Conflict", message, _named(kind.group, kind.plural, name))


def precondition(kind: Kind, name: str, why: str) -> Refusal:
    """A delete that was meant for another object."""
    full = f"{kind.kind}.{kind.group}" if kind.group else kind.kind
    message = f'Operation cannot be fulfilled on {full} "{name}": {why}'
    return Refusal(409, "Conflict", message, _named(kind.group, kind.kind, name))


def invalid(kind: Kind, name: str, problems: Sequence[Problem]) -> Refusal:
    """An object that breaks the rules of its kind."""
    full = f"{kind.kind}.{kind.group}" if kind.group else kind.kind
    said = [f"{problem.field}: {problem.message}" for problem in problems]
    text = said[0] if len(said) == 1 else f"[{', '.join(said)}]"
    causes = [
        {"reason": problem.reason, "message": problem.message, "field": problem.field}
        for problem in problems
    ]
    details = _named(kind.group, kind.kind, name) | {"causes": causes}
    return Refusal(422, "Invalid", f'{full} "{name}" is invalid: {text}', details)


def bad_request(message: str) -> Refusal:
    """A request that makes no sense."""
    return Refusal(400, "BadRequest", message)


def forbidden(kind: Kind, name: str, why: str) -> Refusal:
    """A request that nobody may make now."""
    message = f'{kind.resource} "{name}" is forbidden: {why}'
    return Refusal(403, "Forbidden", message, _named(kind.group, kind.plural, name))


def unsupported_patch(accepted: Sequence[str]) -> Refusal:
    """A patch type that the resource does not take."""
    message = (
        "the body of the request was in an unknown format - accepted media types include: "
        + ", ".join(accepted)
    )
    return Refusal(415, "UnsupportedMediaType", message)


def expired(version: int, oldest: int) -> Refusal:
    """A resource version that the history no longer reaches back to."""
    return Refusal(410, "Expired", f"too old resource version: {version} ({oldest})")


def shown(value: Any) -> str:
    """A value as Kubernetes puts it into sentences."""
    return json.dumps(value, separators=(",", ":"))


def _named(group: str, kind: str, name: str) -> Object:
    return {
        **({"name": name} if name else {}),
        **({"group": group} if group else {}),
        "kind": kind,
    }
