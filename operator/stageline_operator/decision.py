"""What is to be done about one resource: the only output of every decision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from stageline_api.profile import ModelProfile
from stageline_operator.kinds import Kind, Object


@dataclass(frozen=True, slots=True)
class Delete:
    """A child to delete: exactly this one, not a later one of the same name."""

    kind: Kind
    name: str
    uid: str
    force: bool = False
    """At once, for a pod whose node cannot confirm its end."""


@dataclass(frozen=True, slots=True)
class Patch:
    """A merge patch of a pod that exists: its labels brought back, a router told to look."""

    kind: Kind
    name: str
    body: Object


@dataclass(frozen=True, slots=True)
class Notice:
    """A Kubernetes Event about the resource."""

    type: Literal["Normal", "Warning"]
    reason: str
    """CamelCase, one word."""
    note: str
    """A sentence."""
    action: str = "Reconcile"


@dataclass(frozen=True, slots=True)
class Reading:
    """That a model is read, which others may ask for as well."""

    subject: str
    """What tells one pod that reads a model from another (render.profile_pod)."""
    own: bool = True
    """Whether its own pod reads it; otherwise another resource's is waited for."""
    profile: ModelProfile | None = None
    """What the own pod has read; None: it is made here."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Everything that one reconcile does, in the order of the fields."""

    first: tuple[Object, ...] = ()
    """As `apply`, and recorded before anything that rests on it."""
    apply: tuple[Object, ...] = ()
    """Children to make, or to bring back to what they should be."""
    patch: tuple[Patch, ...] = ()
    """Of objects that may be gone by now, which is no error."""
    delete: tuple[Delete, ...] = ()
    create: tuple[Object, ...] = ()
    """Pods to make."""
    status: dict[str, Any] | None = None
    """The new status, None when nothing changed."""
    status_waits: float | None = None
    """Seconds that it may wait (None: it may not), longer where the API server is slow, as more is
    likely to change soon; what is to be told waits with it."""
    notices: tuple[Notice, ...] = ()
    deeds: tuple[Notice, ...] = ()
    """Of what is done here to the children: the next decision will not see it any more."""
    wants_nodes: bool = False
    """Decide once more with the nodes of the cluster: until then it cannot be planned."""
    reading: Reading | None = None
    """None where nothing begins or ends, and nobody is waited for."""
    again: float | None = None
    """Seconds after which to look again though nothing may have changed."""
