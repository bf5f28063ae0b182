"""What a client wants of a generation: from inputs, sampling_parameters and parameters. Pure.

The names are those of Triton's vLLM backend. Inputs win over `sampling_parameters`, and these over
the parameters of the request. Without options a text is greedy.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from stageline.oip import grpc_service_pb2 as oip
from stageline_router.errors import Invalid
from stageline_router.tensors import Input

_FLAGS = (
    "stream",
    "exclude_input_in_output",
    "return_finish_reason",
    "return_num_input_tokens",
    "return_num_output_tokens",
)
_IGNORED = ("triton_", "binary_data", "sequence_", "priority", "timeout")
_JSON = "sampling_parameters"
_MAX_STOPS = 16
_MAX_STOP_IDS = 1024
_STOPS = f"it must be a text or at most {_MAX_STOPS} texts, none empty"
_STOP_IDS = f"it must be at most {_MAX_STOP_IDS} token ids, none negative"
_INT32 = 2**31 - 1


class GenerationOptions(BaseModel):
    """Options of one text, checked."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    max_tokens: int = Field(default=16, ge=1, le=_INT32)
    temperature: float = Field(default=0.0, ge=0, le=100, description="0 is greedy.")
    top_k: int = Field(default=0, ge=-1, le=_INT32, description="0 and -1 are all.")
    top_p: float = Field(default=1.0, gt=0, le=1)
    seed: int | None = Field(default=None, ge=0, le=2**63 - 1)
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    stream: bool = False
    exclude_input_in_output: bool | None = None
    return_finish_reason: bool = False
    return_num_input_tokens: bool = False
    return_num_output_tokens: bool = False

    @property
    def exclude_input(self) -> bool:
        """Streams hold only what is new; a whole text begins with its prompt unless told not to."""
        return self.stream if self.exclude_input_in_output is None else self.exclude_input_in_output

    @field_validator("*", mode="before")
    @classmethod
    def _flags_and_numbers_differ(cls, value: Any, info: ValidationInfo) -> Any:
        annotation = cls.model_fields[info.field_name or ""].annotation
        if isinstance(value, bool) and annotation in (int, float, int | None):
            raise ValueError("it must be a number")
        if annotation in (bool, bool | None) and not isinstance(value, bool | None):
            raise ValueError("it must be true or false")
        return value

    @field_validator("stop", mode="before")
    @classmethod
    def _one_stop_or_several(cls, value: Any) -> Any:
        stops = _texts(value) if isinstance(value, str) else value
        if not isinstance(stops, list | tuple) or len(stops) > _MAX_STOPS:
            raise ValueError(_STOPS)
        if not all(isinstance(stop, str) and stop for stop in stops):
            raise ValueError(_STOPS)
        return tuple(stops)

    @field_validator("stop_token_ids", mode="before")
    @classmethod
    def _ids_or_ids_as_text(cls, value: Any) -> Any:
        ids = _json("stop_token_ids", value) if isinstance(value, str) else value
        if not isinstance(ids, list | tuple) or len(ids) > _MAX_STOP_IDS:
            raise ValueError(_STOP_IDS)
        if not all(type(token) is int and 0 <= token <= _INT32 for token in ids):
            raise ValueError(_STOP_IDS)
        return tuple(ids)


def read_options(request: oip.ModelInferRequest, inputs: Mapping[str, Input]) -> GenerationOptions:
    """Raises Invalid with the option that is wrong."""
    given = {
        _own(name): _parameter(value)
        for name, value in request.parameters.items()
        if not name.startswith(_IGNORED)
    }
    given |= _sampling_parameters(given.pop(_JSON, None))
    if _JSON in inputs:
        given |= _sampling_parameters(_text(inputs[_JSON]))
    given |= {
        _own(name): _flag(given_input)
        for name, given_input in inputs.items()
        if name not in ("text_input", _JSON)
    }
    return _checked(given)


def generation_inputs() -> list[tuple[str, str, list[int], bool]]:
    """Name, datatype, shape, and whether it may be left out."""
    flags = [(name, "BOOL", [1], True) for name in _FLAGS]
    return [("text_input", "BYTES", [1], True), (_JSON, "BYTES", [1], True), *flags]


def generation_outputs() -> list[tuple[str, str, list[int], bool]]:
    """Name, datatype, shape, and whether it comes only when asked for."""
    return [
        ("text_output", "BYTES", [1], False),
        ("finish_reason", "BYTES", [1], True),
        ("num_input_tokens", "UINT32", [1], True),
        ("num_output_tokens", "UINT32", [1], True),
    ]


def _checked(given: Mapping[str, Any]) -> GenerationOptions:
    for name in given:
        if name not in GenerationOptions.model_fields:
            near = difflib.get_close_matches(name, GenerationOptions.model_fields, 1)
            hint = (
                f"did you mean {near[0]}?"
                if near
                else "it has " + ", ".join(GenerationOptions.model_fields)
            )
            raise Invalid(f"text generation has no option {name!r}: {hint}")
    try:
        options = GenerationOptions.model_validate(given)
    except ValidationError as error:
        wrong = error.errors()[0]
        name = str(wrong["loc"][0])
        says = wrong["msg"].removeprefix("Value error, ")
        raise Invalid(f"{name} is {_short(given[name])}: {says[0].lower()}{says[1:]}") from None
    if options.stream and options.exclude_input_in_output is False:
        raise Invalid("a stream never repeats the prompt: leave exclude_input_in_output out")
    return options


def _parameter(value: oip.InferParameter) -> Any:
    kind = value.WhichOneof("parameter_choice")
    return None if kind is None else getattr(value, kind)


def _sampling_parameters(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, str):
        raise Invalid(f"{_JSON} must be a JSON object as text")
    try:
        found = _json(_JSON, value)
    except ValueError as error:
        raise Invalid(str(error)) from None
    if not isinstance(found, dict):
        raise Invalid(f"{_JSON} must be a JSON object, not {_short(found)}")
    return {_own(name): value for name, value in found.items()}


def _own(name: str) -> str:
    """Our name of what some servers call otherwise."""
    return "stream" if name == "streaming" else name


def _texts(value: str) -> Any:
    """A JSON list in a text where it is one: a stop like "[INST]" is itself."""
    try:
        found = _json("stop", value)
    except ValueError:
        return [value]
    return found if isinstance(found, list) else [value]


def _json(name: str, text: str) -> Any:
    def constant(value: str) -> float:
        return math.nan if value == "NaN" else math.inf

    try:
        return json.loads(text, parse_constant=constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is no JSON: {error}") from None


def _text(given: Input) -> str:
    if given.datatype != "BYTES" or len(given.elements) != 1:
        raise Invalid(f"input {given.name} must be BYTES [1]")
    try:
        return given.elements[0].decode()
    except UnicodeDecodeError:
        raise Invalid(f"input {given.name} is no UTF-8") from None


def _flag(given: Input) -> bool:
    if given.name not in (*_FLAGS, "streaming"):
        known = ", ".join(name for name, *_ in generation_inputs())
        raise Invalid(f"text generation has no input {given.name!r}: it has {known}")
    if given.datatype != "BOOL" or len(given.data) != 1:
        raise Invalid(f"input {given.name} must be BOOL [1]")
    return given.data[0] != 0


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
