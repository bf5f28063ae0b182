"""Whether a child still is what the operator wants: pure.

What is applied carries a hash of the wish, so that a changed wish is seen even where it says less
than before; and the child must hold everything that was wished, whatever others have added to it.
Both together spare an unchanged child its request (kopf.md 1.2, pitfall 15: at a restart with
1,000 resources the requests that change nothing would be the whole cost).
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from stageline_api.quantity import parse_quantity
from stageline_operator.kinds import Object
from stageline_operator.labels import APPLIED

_QUANTITIES = ("limits", "requests")
_HASH_LENGTH = 16


def stamped(desired: Object) -> Object:
    """`desired` with the hash of itself as an annotation."""
    metadata = desired["metadata"]
    annotations = {**metadata.get("annotations", {}), APPLIED: _hash(desired)}
    return {**desired, "metadata": {**metadata, "annotations": annotations}}


def is_as_wished(live: Object | None, wished: Object) -> bool:
    """Whether `live` holds all of `wished`, a stamped object, and no older wish."""
    if live is None:
        return False
    annotations = live["metadata"].get("annotations") or {}
    stamp = wished["metadata"]["annotations"][APPLIED]
    return annotations.get(APPLIED) == stamp and covers(live, wished)


def covers(live: Any, wished: Any, under: str = "") -> bool:
    """Whether everything in `wished` is in `live`; what others added does not matter.

    Entries of a list are matched by their name where they have one, by place otherwise.
    """
    if isinstance(wished, dict):
        mine = live if isinstance(live, dict) else {}
        if under in _QUANTITIES:
            return all(_same_quantity(mine.get(key), value) for key, value in wished.items())
        return all(covers(mine.get(key), value, key) for key, value in wished.items())
    if isinstance(wished, list):
        return _covers_list(live if isinstance(live, list) else [], wished)
    return bool(live == wished)


def _covers_list(live: list[Any], wished: list[Any]) -> bool:
    if all(isinstance(entry, dict) and "name" in entry for entry in (*live, *wished)):
        by_name = {entry["name"]: entry for entry in live}
        return all(covers(by_name.get(entry["name"]), entry) for entry in wished)
    return len(live) == len(wished) and all(map(covers, live, wished))


def _same_quantity(live: Any, wished: Any) -> bool:
    """The API server writes `1000m` as `1` and `1024Mi` as `1Gi`."""
    if live == wished or live is None:
        return bool(live == wished)
    return bool(_value(live) == _value(wished))


def _value(quantity: Any) -> Any:
    try:
        return parse_quantity(str(quantity))
    except ValueError:
        return str(quantity)


def _hash(value: Object) -> str:
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_HASH_LENGTH]
