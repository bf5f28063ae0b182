"""The patches besides apply: JSON patch, merge patch, and Kubernetes' strategic merge patch."""

from __future__ import annotations

from typing import Any, Final

import jsonpatch

from stageline_local.apiserver.errors import Refusal, bad_request
from stageline_local.apiserver.schema import Node

_ORDER: Final = "$setElementOrder/"
_DELETE: Final = "$deleteFromPrimitiveList/"
_KEEP_ONLY: Final = "$retainKeys"
_DIRECTIVE: Final = "$patch"


def json_patch(value: Any, patch: Any) -> Any:
    """RFC 6902. Refusal (422) when an operation cannot be done, as by a failed `test`."""
    try:
        return jsonpatch.apply_patch(value, patch)
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException):
        sentence = "the server rejected our request due to an error in our request"
        raise Refusal(422, "Invalid", sentence, {}) from None
    except (TypeError, KeyError, AttributeError, ValueError):
        raise bad_request("error decoding patch: a JSON patch is a list of operations") from None


def merge_patch(value: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    result = dict(value) if isinstance(value, dict) else {}
    for key, change in patch.items():
        if change is None:
            result.pop(key, None)
        else:
            result[key] = merge_patch(result.get(key), change)
    return result


def strategic_merge_patch(node: Node, value: Any, patch: Any) -> Any:
    """Merges lists by the keys in the schema, and obeys `$patch` and its like."""
    if not isinstance(patch, dict):
        return patch
    match patch.get(_DIRECTIVE):
        case "replace":
            return {key: each for key, each in patch.items() if key != _DIRECTIVE}
        case "delete":
            return {}
    result = dict(value) if isinstance(value, dict) else {}
    if (kept := patch.get(_KEEP_ONLY)) is not None:
        result = {key: each for key, each in result.items() if key in kept}
    for key, change in patch.items():
        if key.startswith(_DELETE):
            name = key.removeprefix(_DELETE)
            result[name] = [item for item in result.get(name, ()) if item not in change]
        elif not key.startswith("$"):
            _set(node.child(key), result, key, change, patch.get(_ORDER + key))
    return result


def _set(node: Node, result: dict[str, Any], key: str, change: Any, order: Any) -> None:
    if change is None:
        result.pop(key, None)
    elif isinstance(change, list):
        live = result.get(key) or []
        merged = _merge_lists(node, live, change)
        result[key] = _ordered(node, merged, live, order or change) if node.merges else merged
    else:
        result[key] = strategic_merge_patch(node, result.get(key), change)


def _merge_lists(node: Node, live: list[Any], patch: list[Any]) -> list[Any]:
    if not node.merges or {_DIRECTIVE: "replace"} in patch:
        return [item for item in patch if item != {_DIRECTIVE: "replace"}]
    if not node.merge_key:
        return live + [item for item in patch if item not in live]
    key = node.merge_key
    result = list(live)
    for change in patch:
        if not isinstance(change, dict) or key not in change:
            raise bad_request(f"map: {change} does not contain declared merge key: {key}")
        places = [place for place, item in enumerate(result) if item.get(key) == change[key]]
        if change.get(_DIRECTIVE) == "delete":
            result = [item for item in result if item.get(key) != change[key]]
        elif places:
            result[places[0]] = strategic_merge_patch(node.item(), result[places[0]], change)
        else:
            result.append(strategic_merge_patch(node.item(), {}, change))
    return result


def _ordered(node: Node, items: list[Any], live: list[Any], order: list[Any]) -> list[Any]:
    """Those in `order` in that order, the others between them as they were in `live`."""

    def name(item: Any) -> Any:
        return item.get(node.merge_key) if node.merge_key else item

    wanted, before = [name(item) for item in order], [name(item) for item in live]
    left = [item for item in items if name(item) not in wanted]
    right = [item for item in items if name(item) in wanted]
    right.sort(key=lambda item: wanted.index(name(item)))
    result: list[Any] = []
    while left and right:
        ours, theirs = name(left[0]), name(right[0])
        both_known = ours in before and theirs in before
        first = both_known and before.index(ours) < before.index(theirs)
        result.append((left if first else right).pop(0))
    return result + left + right
