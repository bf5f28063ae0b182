"""The part that all children have in common: what they are, whose, and what they are called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stageline_operator.kinds import Kind, Object
from stageline_operator.labels import COMPONENT, OWNER, common


def owner_reference(resource: Object) -> Object:
    """Makes a child the resource's own: it goes when the resource goes."""
    return {
        "apiVersion": resource["apiVersion"],
        "kind": resource["kind"],
        "name": resource["metadata"]["name"],
        "uid": resource["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def owner(resource: Object) -> str:
    """The name that the children carry."""
    name: str = resource["metadata"]["name"]
    return name


def child(
    resource: Object,
    kind: Kind,
    name: str,
    component: str,
    labels: Mapping[str, str] | None = None,
    **body: Any,
) -> Object:
    """A child of `resource` with `body` beside its metadata."""
    return {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": {
            "name": name,
            "namespace": resource["metadata"]["namespace"],
            "labels": common(owner(resource), component) | dict(labels or {}),
            "ownerReferences": [owner_reference(resource)],
        },
        **body,
    }


def selector(resource: Object, component: str) -> dict[str, str]:
    """Labels by which Services, budgets and Deployments find their pods; they never change."""
    return {OWNER: owner(resource), COMPONENT: component}
