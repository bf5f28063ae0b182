"""How a client asks for a generation: inputs, sampling_parameters, parameters. Pure.

Inputs win over `sampling_parameters`, and these over the parameters of the request. Naming an
output asks for it as its `return_` flag does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stageline.oip import grpc_service_pb2 as oip
from stageline_router.errors import Invalid
from stageline_router.options import (
    GenerationOptions,
    check_options,
    read_json,
    shortened,
)
from stageline_router.tensors import Input

TEXT, MESSAGES = "text_input", "messages"
_JSON = "sampling_parameters"
_FLAGS = (
    "stream",
    "exclude_input_in_output",
    "return_finish_reason",
    "return_cumulative_logprob",
    "return_logprobs",
    "return_num_input_tokens",
    "return_num_output_tokens",
)
_IGNORED = ("triton_", "binary_data", "sequence_", "timeout")
_OUTPUTS = {
    "text_output": "BYTES",
    "finish_reason": "BYTES",
    "cumulative_logprob": "FP32",
    "logprobs": "BYTES",
    "num_input_tokens": "UINT32",
    "num_output_tokens": "UINT32",
}


def read_options(request: oip.ModelInferRequest, inputs: Mapping[str, Input]) -> GenerationOptions:
    """Raises Invalid with what is wrong."""
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
        if name not in (TEXT, MESSAGES, _JSON)
    }
    return check_options(given | _asked_outputs(request))


def generation_inputs(*, chat: bool) -> list[tuple[str, str, list[int], bool]]:
    """Name, datatype, shape, and whether it may be left out. `chat`: messages are taken too."""
    flags = [(name, "BOOL", [1], True) for name in _FLAGS]
    texts = [TEXT, MESSAGES] if chat else [TEXT]
    return [*((name, "BYTES", [1], True) for name in (*texts, _JSON)), *flags]


def generation_outputs() -> list[tuple[str, str, list[int]]]:
    """Name, datatype and shape; -1 is the number of texts, n."""
    return [
        (name, datatype, [1] if name == "num_input_tokens" else [-1])
        for name, datatype in _OUTPUTS.items()
    ]


def _asked_outputs(request: oip.ModelInferRequest) -> dict[str, bool]:
    flags = {}
    for output in request.outputs:
        if output.name not in _OUTPUTS:
            raise Invalid(
                f"text generation has no output {output.name}: it has {', '.join(_OUTPUTS)}"
            )
        if output.name != "text_output":
            flags[f"return_{output.name}"] = True
    return flags


def _parameter(value: oip.InferParameter) -> Any:
    kind = value.WhichOneof("parameter_choice")
    return None if kind is None else getattr(value, kind)


def _sampling_parameters(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, str):
        raise Invalid(f"{_JSON} must be a JSON object as text")
    try:
        found = read_json(_JSON, value)
    except ValueError as error:
        raise Invalid(str(error)) from None
    if not isinstance(found, dict):
        raise Invalid(f"{_JSON} must be a JSON object, not {shortened(found)}")
    return {_own(name): value for name, value in found.items()}


def _own(name: str) -> str:
    """Our name of what some servers call otherwise."""
    return "stream" if name == "streaming" else name


def _text(given: Input) -> str:
    if given.datatype != "BYTES" or len(given.elements) != 1:
        raise Invalid(f"input {given.name} must be BYTES [1]")
    try:
        return given.elements[0].decode()
    except UnicodeDecodeError:
        raise Invalid(f"input {given.name} is no UTF-8") from None


def _flag(given: Input) -> bool:
    if given.name == "image":
        raise Invalid("input image is not served: this model takes text alone")
    if given.name not in (*_FLAGS, "streaming"):
        known = ", ".join(name for name, *_ in generation_inputs(chat=True))
        raise Invalid(f"text generation has no input {given.name!r}: it has {known}")
    if given.datatype != "BOOL" or len(given.data) != 1:
        raise Invalid(f"input {given.name} must be BOOL [1]")
    return given.data[0] != 0
