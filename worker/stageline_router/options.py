"""What a generation can be asked for: the options, and which values they take. Pure.

Names and ranges are those of vLLM's SamplingParams and of Triton's vLLM backend. Without options a
text is greedy.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from stageline_router.errors import Invalid

_MAX_STOPS = 16
_LONGEST_STOP = 1024  # characters
_MAX_STOP_IDS = 1024
_MAX_TEXTS = 16
_STOPS = (
    f"it must be a text or at most {_MAX_STOPS} texts, none empty and none of more than "
    f"{_LONGEST_STOP} characters"
)
_STOP_IDS = f"it must be at most {_MAX_STOP_IDS} token ids, none negative"
_INT32 = 2**31 - 1


class GenerationOptions(BaseModel):
    """Options of one request, checked."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    max_tokens: int = Field(default=16, ge=1, le=_INT32, description="Most tokens of a text.")
    min_tokens: int = Field(
        default=0,
        ge=0,
        le=_INT32,
        description="Before so many tokens neither the end-of-text token nor a stop ends it.",
    )
    temperature: float = Field(
        default=0.0, ge=0, le=100, description="0 is greedy: the likeliest token each time."
    )
    top_k: int = Field(
        default=0, ge=-1, le=_INT32, description="Draw from so many tokens; 0 and -1 are all."
    )
    top_p: float = Field(
        default=1.0, ge=1e-6, le=1, description="Draw from the likeliest of so much probability."
    )
    min_p: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Draw from tokens with at least this share of the likeliest one's probability.",
    )
    repetition_penalty: float = Field(
        default=1.0,
        ge=1e-6,
        le=100,
        description="Above 1, tokens of prompt and text become less likely; 1 is none.",
    )
    presence_penalty: float = Field(
        default=0.0, ge=-2, le=2, description="Taken from the logit of what the text has already."
    )
    frequency_penalty: float = Field(
        default=0.0, ge=-2, le=2, description="The same, times how often the text has it."
    )
    seed: int | None = Field(
        default=None,
        ge=0,
        le=2**63 - 1,
        description="The same seed draws the same text; text i of n draws with seed + i.",
    )
    n: int = Field(default=1, ge=1, le=_MAX_TEXTS, description="Texts for the one prompt.")
    stop: tuple[str, ...] = Field(
        default=(), description="Texts that end the text before them: one, or at most 16."
    )
    stop_token_ids: tuple[int, ...] = Field(
        default=(), description="Tokens that end the text, at most 1024."
    )
    ignore_eos: bool = Field(
        default=False, description="Go on after the model's end-of-text token."
    )
    logprobs: int | None = Field(
        default=None,
        ge=0,
        le=20,
        description="Likeliest tokens to tell of beside each drawn one, in output `logprobs`.",
    )
    priority: int = Field(
        default=0, ge=-_INT32, le=_INT32, description="The lower, the sooner it is served."
    )
    stream: bool = Field(
        default=False, description="Send the text as it is made (ModelStreamInfer)."
    )
    exclude_input_in_output: bool | None = Field(
        default=None,
        description="Leave the prompt out; without it only an unstreamed `text_input` is repeated.",
    )
    return_finish_reason: bool = Field(
        default=False, description="Send `finish_reason`: stop, length, or None while unfinished."
    )
    return_cumulative_logprob: bool = Field(
        default=False, description="Send `cumulative_logprob`, the sum over the text so far."
    )
    return_logprobs: bool = Field(
        default=False, description="Send `logprobs` as JSON: what `logprobs` asks for, else null."
    )
    return_num_input_tokens: bool = Field(
        default=False, description="Send `num_input_tokens`, of the prompt."
    )
    return_num_output_tokens: bool = Field(
        default=False, description="Send `num_output_tokens`: of the text that this response has."
    )

    @property
    def asked_logprobs(self) -> int | None:
        """How many of the likeliest tokens a leader must tell of; None when of none at all."""
        if self.return_logprobs and self.logprobs is not None:
            return max(1, self.logprobs)  # without the likeliest one, no rank is known
        return 0 if self.return_cumulative_logprob else None

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
        if not all(isinstance(stop, str) and 0 < len(stop) <= _LONGEST_STOP for stop in stops):
            raise ValueError(_STOPS)
        return tuple(stops)

    @field_validator("stop_token_ids", mode="before")
    @classmethod
    def _ids_or_ids_as_text(cls, value: Any) -> Any:
        ids = read_json("stop_token_ids", value) if isinstance(value, str) else value
        if not isinstance(ids, list | tuple) or len(ids) > _MAX_STOP_IDS:
            raise ValueError(_STOP_IDS)
        if not all(type(token) is int and 0 <= token <= _INT32 for token in ids):
            raise ValueError(_STOP_IDS)
        return tuple(ids)

    @model_validator(mode="after")
    def _together(self) -> GenerationOptions:
        if self.stream and self.exclude_input_in_output is False:
            raise ValueError("a stream never repeats the prompt: leave exclude_input_in_output out")
        if self.min_tokens > self.max_tokens:
            raise ValueError(
                f"min_tokens is {self.min_tokens}, and max_tokens is {self.max_tokens}: a text has "
                "no room for that"
            )
        if self.n > 1 and self.temperature == 0:
            raise ValueError(
                f"n is {self.n} and temperature is 0: all {self.n} texts would be the same one, "
                "set a temperature"
            )
        return self


def check_options(given: Mapping[str, Any]) -> GenerationOptions:
    """Raises Invalid with the option that is wrong."""
    for name in given:
        if name not in GenerationOptions.model_fields:
            near = difflib.get_close_matches(name[:64], GenerationOptions.model_fields, 1)
            hint = (
                f"did you mean {near[0]}?"
                if near
                else "it has " + ", ".join(GenerationOptions.model_fields)
            )
            raise Invalid(f"text generation has no option {shortened(name)}: {hint}")
    try:
        return GenerationOptions.model_validate(given)
    except ValidationError as error:
        wrong = error.errors()[0]
        says = wrong["msg"].removeprefix("Value error, ")
        if not wrong["loc"]:
            raise Invalid(says) from None
        name = str(wrong["loc"][0])
        raise Invalid(f"{name} is {shortened(given[name])}: {says[0].lower()}{says[1:]}") from None


def read_json(name: str, text: str) -> Any:
    """Raises ValueError with a sentence; NaN and infinities become floats."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is no JSON: {error}") from None


def shortened(value: Any) -> str:
    """A client's value for a sentence."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _texts(value: str) -> Any:
    """A JSON list in a text where it is one: a stop like "[INST]" is itself."""
    try:
        found = read_json("stop", value)
    except ValueError:
        return [value]
    return found if isinstance(found, list) else [value]
