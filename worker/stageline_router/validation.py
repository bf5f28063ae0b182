"""Requests held against what the model says of itself. Pure.

Nothing that passes here can harm another request of the same microbatch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stageline.v1 import pipeline_pb2 as pb
from stageline_router.description import VERSION
from stageline_router.errors import Invalid, NotFound
from stageline_router.tensors import Input
from stageline_wire import DATATYPES

_IDS = "input_ids"
_MASK = "attention_mask"


def check_model(name: str, version: str, served: str) -> None:
    """Raises NotFound when this server does not serve that model in that version."""
    if name != served:
        raise NotFound(f"model {name!r} is not served here: this server has {served}")
    if version not in ("", VERSION):
        raise NotFound(f"{served} has no version {version!r}: leave it out, or ask for {VERSION}")


def check_outputs(names: Sequence[str], info: pb.ModelInfo) -> tuple[str, ...] | None:
    """The outputs to compute; None, when none was named, is all. Raises Invalid."""
    known = [spec.name for spec in info.outputs]
    for name in names:
        if name not in known:
            raise Invalid(f"the model has no output {name!r}: it has {', '.join(known)}")
        if names.count(name) > 1:
            raise Invalid(f"output {name} is asked for twice")
    return tuple(names) or None


def check_tensors(inputs: Mapping[str, Input], info: pb.ModelInfo) -> None:
    """Raises Invalid when the model cannot take these inputs together."""
    specs = {spec.name: spec for spec in info.inputs}
    for name, given in inputs.items():
        if name not in specs:
            raise Invalid(f"the model has no input {name!r}: it has {', '.join(specs)}")
        _check_one(given, specs[name])
        if specs[name].limit:
            _check_range(given, specs[name].limit)
    for name, spec in specs.items():
        if name not in inputs and not spec.optional:
            raise Invalid(f"input {name} is missing")
    _check_batch(list(inputs.values()))
    if info.vocab_size:
        _check_tokens(inputs, info)


def _check_one(given: Input, spec: Any) -> None:
    if given.datatype != spec.datatype:
        raise Invalid(
            f"input {given.name} is {given.datatype}, the model takes {spec.datatype}: convert it"
        )
    shape, wanted = list(given.shape), list(spec.shape)
    fits = len(shape) == len(wanted) and all(
        want in (-1, size) for size, want in zip(shape, wanted, strict=True)
    )
    if not fits:
        raise Invalid(f"input {given.name} has shape {shape}, the model takes {wanted} (-1 is any)")
    if 0 in shape:
        raise Invalid(f"input {given.name} has shape {shape}: there is nothing in it")


def _check_batch(inputs: Sequence[Input]) -> None:
    first = inputs[0]
    for other in inputs[1:]:
        if other.shape[0] != first.shape[0]:
            raise Invalid(
                f"input {first.name} has {first.shape[0]} rows and {other.name} has "
                f"{other.shape[0]}: both need the same"
            )


def _check_tokens(inputs: Mapping[str, Input], info: pb.ModelInfo) -> None:
    ids = inputs[_IDS]
    for other in inputs.values():
        if other.shape != ids.shape:
            raise Invalid(
                f"input {other.name} has shape {list(other.shape)} and {_IDS} has "
                f"{list(ids.shape)}: both go token by token"
            )
    length = ids.shape[-1]
    if 0 < info.max_model_len < length:
        raise Invalid(
            f"{_IDS} has {length} tokens, the model takes at most {info.max_model_len}: shorten it"
        )
    if _MASK in inputs:
        _check_mask(inputs[_MASK])


def _check_mask(mask: Input) -> None:
    rows = _values(mask).any(axis=1)
    if not rows.all():
        raise Invalid(
            f"row {int(rows.argmin())} of {_MASK} is all 0: a row needs a token that counts"
        )


def _check_range(given: Input, limit: int) -> None:
    values = _values(given)
    if (wrong := (values < 0) | (values >= limit)).any():
        at = tuple(int(index) for index in np.unravel_index(wrong.argmax(), given.shape))
        raise Invalid(
            f"input {given.name} has {values[at]} at {list(at)}: it must be 0 to {limit - 1}"
        )


def _values(given: Input) -> np.ndarray:
    values = np.frombuffer(given.data, dtype=f"<i{DATATYPES[given.datatype].size}")
    return values.reshape(given.shape)
