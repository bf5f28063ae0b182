"""Whether a model's attention is ours to compute, for many sequences at once."""

from __future__ import annotations

from typing import Any

_ATTENTION = {"full_attention", "sliding_attention"}
# Its frequencies follow from the longest sequence of a batch: others would change with it.
_LONGEST_DECIDES = ("dynamic", "longrope")


def packs(model: Any) -> bool:
    """Whether every layer of `model` hands its attention over, and positions mean the same in any
    company. Else a common batch gives other results, mostly without an error."""
    kinds = set(getattr(model.config, "layer_types", None) or ())
    return (
        model._supports_attention_backend
        and kinds <= _ATTENTION
        and not any(_depends_on_longest(module) for module in model.modules())
    )


def _depends_on_longest(module: Any) -> bool:
    kinds = getattr(module, "rope_type", None)
    names = kinds.values() if isinstance(kinds, dict) else [kinds or ""]
    return any(kind in str(name) for name in names for kind in _LONGEST_DECIDES)
