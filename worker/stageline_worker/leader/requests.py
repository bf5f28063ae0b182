"""What a router asks, checked before it may enter the ring. Pure.

The router has checked what clients sent; this is checked again because one bad tensor would harm
the work of others: a token id past the embedding ends a process on a GPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from stageline_wire import Frame, TensorView
from stageline_worker.leader.work import Generation
from stageline_worker.microbatch import Microbatch, ModelInfo, Sampling, TensorSpec
from stageline_worker.tensors import from_view

Id = int | str


class BadRequest(Exception):
    """The request cannot be served; the message is a sentence for its sender."""


@dataclass(frozen=True, slots=True)
class Field:
    """A number of a request: its type, and the range in which it is valid."""

    name: str
    default: float
    low: float
    high: float
    integer: bool = True

    def read(self, meta: Mapping[str, Any]) -> float:
        value = meta.get(self.name)
        if value is None:
            return self.default
        kinds = (int,) if self.integer else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or not self._has(value):
            kind = "an integer" if self.integer else "a number"
            wanted = f"{kind} from {self.low:g} to {self.high:g}"
            raise BadRequest(f"{self.name} is {repr(value)[:40]}; it must be {wanted}")
        return value

    def _has(self, value: float) -> bool:
        return self.low <= value <= self.high  # NaN is in no range


_MAX_TOKENS = Field("max_tokens", 16, 1, 2**31)
_TEMPERATURE = Field("temperature", 0.0, 0, 100, integer=False)
_TOP_K = Field("top_k", 0, 0, 2**31)
_TOP_P = Field("top_p", 1.0, 1e-6, 1, integer=False)
_MIN_P = Field("min_p", 0.0, 0, 1, integer=False)
_REPETITION = Field("repetition_penalty", 1.0, 1e-6, 100, integer=False)
_PRESENCE = Field("presence_penalty", 0.0, -2, 2, integer=False)
_FREQUENCY = Field("frequency_penalty", 0.0, -2, 2, integer=False)
_SEED = Field("seed", 0, 0, 2**63 - 1)
_LOGPROBS = Field("logprobs", -1, 0, 20)
_PRIORITY = Field("priority", 0, -(2**31), 2**31)
_MAX_STOPS = 1024


def request_id(frame: Frame) -> Id:
    """Raises BadRequest when the frame has none: nobody could be told of an error."""
    value = frame.meta.get("id")
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise BadRequest(f"a {frame.kind.name} frame needs an id, an integer or a string")
    return value


def inference(frame: Frame, info: ModelInfo) -> Microbatch:
    """The microbatch of an INFER frame. Raises BadRequest."""
    specs = {spec.name: spec for spec in info.inputs}
    views = {view.name: view for view in frame.tensors}
    for name, view in views.items():
        if name not in specs:
            raise BadRequest(f"the model has no input {name}; it has {', '.join(specs)}")
        _check(view, specs[name])
    for spec in info.inputs:
        if not spec.optional and spec.name not in views:
            raise BadRequest(f"input {spec.name} is missing")
    _check_together(views, info)
    tensors = {name: from_view(view) for name, view in views.items()}
    for name, tensor in tensors.items():
        _check_range(tensor, specs[name])
    return Microbatch(tensors, outputs=_outputs(frame, info))


def generation(frame: Frame, info: ModelInfo, key: int) -> Generation:
    """The work of a GENERATE frame. Raises BadRequest."""
    if not info.generates:
        raise BadRequest(f"{info.architecture} does not generate text")
    meta, tokens = frame.meta, _tokens(frame, info)
    most = int(_MAX_TOKENS.read(meta))
    output = int(Field("output", 0, 0, min(most, len(tokens)) - 1).read(meta))
    return Generation(
        key,
        tokens,
        most,
        _sampling(meta),
        _stop(meta, info),
        min_tokens=int(Field("min_tokens", 0, 0, most).read(meta)),
        output=output,
        priority=int(_PRIORITY.read(meta)),
    )


def _sampling(meta: Mapping[str, Any]) -> Sampling:
    logprobs = int(_LOGPROBS.read(meta))
    return Sampling(
        seed=int(_SEED.read(meta)),
        position=0,
        temperature=float(_TEMPERATURE.read(meta)),
        top_k=int(_TOP_K.read(meta)),
        top_p=float(_TOP_P.read(meta)),
        min_p=float(_MIN_P.read(meta)),
        repetition_penalty=float(_REPETITION.read(meta)),
        presence_penalty=float(_PRESENCE.read(meta)),
        frequency_penalty=float(_FREQUENCY.read(meta)),
        logprobs=None if logprobs < 0 else logprobs,
    )


def _check(view: TensorView, spec: TensorSpec) -> None:
    if view.datatype.name != spec.datatype:
        raise BadRequest(f"input {spec.name} is {spec.datatype}, not {view.datatype.name}")
    fits = len(view.shape) == len(spec.shape) and all(
        size > 0 and wanted in (-1, size)
        for size, wanted in zip(view.shape, spec.shape, strict=True)
    )
    if not fits:
        shape, wanted = list(view.shape), list(spec.shape)
        raise BadRequest(f"input {spec.name} has shape {shape}; it must be {wanted}, none empty")


def _check_together(views: Mapping[str, TensorView], info: ModelInfo) -> None:
    """Dimension 0 is the batch of every input; inputs of a text model go token by token."""
    if not views:
        raise BadRequest("the request has no tensor")
    first = next(iter(views.values()))
    ids = views.get("input_ids", first)
    for name, view in views.items():
        same = view.shape == ids.shape if info.vocab_size else view.shape[0] == first.shape[0]
        if not same:
            raise BadRequest(
                f"input {name} has shape {list(view.shape)}, {ids.name} has {list(ids.shape)}"
            )
    if info.vocab_size and 0 < info.max_model_len < ids.shape[-1]:
        raise BadRequest(f"{ids.shape[-1]} tokens are more than the model's {info.max_model_len}")


def _check_range(tensor: Tensor, spec: TensorSpec) -> None:
    if not spec.limit:
        return
    low, high = int(tensor.min()), int(tensor.max())
    if low < 0 or high >= spec.limit:
        bad = low if low < 0 else high
        raise BadRequest(f"input {spec.name} has {bad}; it must be 0 to {spec.limit - 1}")


def _outputs(frame: Frame, info: ModelInfo) -> tuple[str, ...] | None:
    wanted = frame.meta.get("outputs")
    if wanted is None:
        return None
    names = [spec.name for spec in info.outputs]
    if not isinstance(wanted, list) or not wanted:
        raise BadRequest("outputs must be a list of names, or null for all")
    for name in wanted:
        if name not in names:
            raise BadRequest(f"the model has no output {name}; it has {', '.join(names)}")
    return tuple(wanted)


def _tokens(frame: Frame, info: ModelInfo) -> list[int]:
    views = {view.name: view for view in frame.tensors}
    view = views.get("input_ids")
    if view is None or len(views) > 1 or view.datatype.name != "INT64" or len(view.shape) != 1:
        raise BadRequest("a prompt is one tensor, input_ids, INT64 of shape [tokens]")
    ids = from_view(view)
    spec = next(spec for spec in info.inputs if spec.name == "input_ids")
    if not len(ids):
        raise BadRequest("the prompt is empty")
    if info.max_model_len and len(ids) >= info.max_model_len:
        raise BadRequest(
            f"a prompt of {len(ids)} tokens leaves no room for an answer in the model's "
            f"{info.max_model_len}"
        )
    _check_range(ids, spec)
    return [int(token) for token in ids.tolist()]


def _stop(meta: Mapping[str, Any], info: ModelInfo) -> frozenset[int]:
    given = meta.get("stop_token_ids") or []
    if not isinstance(given, list) or not all(type(token) is int for token in given):
        raise BadRequest("stop_token_ids must be a list of integers")
    if len(given) > _MAX_STOPS:
        raise BadRequest(f"stop_token_ids has {len(given)} tokens; {_MAX_STOPS} is the most")
    for token in given:
        if not 0 <= token < info.vocab_size:
            last = info.vocab_size - 1
            raise BadRequest(f"stop_token_ids has {str(token)[:40]}; it must be 0 to {last}")
    ignore = meta.get("ignore_eos", False)
    if ignore not in (True, False, None):
        raise BadRequest("ignore_eos must be true or false")
    return frozenset(given) if ignore else frozenset(given) | frozenset(info.eos_token_ids)
