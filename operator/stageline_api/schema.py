"""What all parts of the resource share: how its fields are named, and the types they are made of.

Outside, fields are camelCase; inside, snake_case. Types check on the way in, and never turn one
thing into another: "4" is not a number.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    StringConstraints,
    WithJsonSchema,
)
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from stageline_api.quantity import (
    DURATION_PATTERN,
    QUANTITY_PATTERN,
    parse_duration,
    parse_quantity,
)
from stageline_api.uri import check_uri

NAME_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"  # a DNS label


class SpecModel(BaseModel):
    """A part that users write: a field it does not know is refused."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
    )


class StatusModel(SpecModel):
    """A part that the operator writes: fields of a newer operator are passed over."""

    model_config = ConfigDict(extra="ignore")


class SentenceError(PydanticCustomError):
    """A refusal that is a whole sentence already and names its fields itself."""

    def __new__(cls, sentence: str) -> SentenceError:
        return super().__new__(cls, "sentence", "{sentence}", {"sentence": sentence})


def _number_as_text(value: Any) -> Any:
    """YAML reads `1` and `1.5` as numbers: Kubernetes takes them as quantities all the same."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _checked_quantity(text: str) -> str:
    parse_quantity(text)
    return text


def _checked_duration(text: str) -> str:
    parse_duration(text)
    return text


def _checked_name(text: str) -> str:
    if not re.fullmatch(NAME_PATTERN, text):
        raise ValueError(
            "must be lower case letters, digits and '-', start and end with a letter or digit "
            f"and have at most 63 characters, not {text[:80]!r}"
        )
    return text


def _checked_uri(text: str) -> str:
    check_uri(text)
    return text


Whole = Annotated[int, Strict()]
Positive = Annotated[int, Strict(), Field(ge=1, le=2**31 - 1)]
Quantity = Annotated[
    str,
    BeforeValidator(_number_as_text),
    AfterValidator(_checked_quantity),
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "pattern": QUANTITY_PATTERN,
            "x-kubernetes-int-or-string": True,
        }
    ),
]
Duration = Annotated[
    str,
    BeforeValidator(_number_as_text),  # so that `2` is refused for its missing unit
    AfterValidator(_checked_duration),
    WithJsonSchema({"type": "string", "pattern": DURATION_PATTERN}),
]
Name = Annotated[
    str,
    AfterValidator(_checked_name),
    WithJsonSchema({"type": "string", "pattern": NAME_PATTERN}),
]
ModelUri = Annotated[str, StringConstraints(max_length=1024), AfterValidator(_checked_uri)]
