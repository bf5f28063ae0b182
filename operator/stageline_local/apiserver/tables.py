"""Lists as `kubectl get` prints them."""

from __future__ import annotations

from collections.abc import Sequence

from stageline_local.apiserver.kinds import Object
from stageline_local.apiserver.registry import Served


def table(served: Served, objects: Sequence[Object]) -> Object:
    """The Table of these objects."""
    rows = [{"cells": [obj["metadata"]["name"]], "object": obj} for obj in objects]
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {},
        "columnDefinitions": [{"name": "Name", "type": "string", "format": "name", "priority": 0}],
        "rows": rows,
    }
