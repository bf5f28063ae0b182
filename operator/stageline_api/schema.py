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
    DURATION_SENTENCE,
    LONGEST,
    QUANTITY_PATTERN,
    QUANTITY_SENTENCE,
    parse_duration,
    parse_quantity,
)
from stageline_api.uri import check_uri

NAME_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"  # a DNS label
OBJECT_PATTERN = r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$"  # nearly a DNS subdomain
LABEL_VALUE_PATTERN = r"^([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?$"
LABEL_KEY_PATTERN = (
    r"^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$"
)
CACHE_PATTERN = (
    r"^(pvc://[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*"
    r"|file://(/[A-Za-z0-9_][A-Za-z0-9_.-]*)+)$"
)
IMAGE_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_./:@-]{0,511}$"

DEEPEST = 32

# Said of a field, after its path: by the models, and by the API server (crd.py).
NAME_SENTENCE = (
    "must be lower case letters, digits and '-', start and end with a letter or digit and have "
    "at most 63 characters"
)
OBJECT_SENTENCE = (
    "must be the name of an object: lower case letters, digits, '-' and '.', at most 253"
)
LABEL_VALUE_SENTENCE = (
    "must be a label's value: letters, digits, '-', '_' and '.', at most 63, a letter or digit "
    "at both ends"
)
LABEL_KEY_SENTENCE = (
    "must be a label's name, for example gpu or example.com/gpu: letters, digits, '-', '_' and "
    "'.', at most 63 after the '/'"
)
CACHE_SENTENCE = "must be a place for a cache: write pvc://claim/folder or file:///folder"
IMAGE_SENTENCE = "must be an image, for example registry.example.com/stageline-worker:1.0"


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


def _like(pattern: str, sentence: str) -> AfterValidator:
    """Text that looks like `pattern`; `sentence` says to people how that is."""

    def checked(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"{sentence}, not {text[:80]!r}")
        return text

    return AfterValidator(checked)


def _checked_uri(text: str) -> str:
    check_uri(text)
    return text


def _shallow(value: dict[str, Any]) -> dict[str, Any]:
    """No deeper than any pod is, so that nothing that walks it runs out of stack."""
    level: list[Any] = [value]
    for _ in range(DEEPEST):
        level = [
            child
            for each in level
            for child in (each.values() if isinstance(each, dict) else each)
            if isinstance(child, dict | list)
        ]
        if not level:
            return value
    raise ValueError(f"is nested more than {DEEPEST} levels deep, which no pod is")


def _text(pattern: str, sentence: str, longest: int) -> WithJsonSchema:
    return WithJsonSchema(
        {"type": "string", "maxLength": longest, "pattern": pattern, "x-sentence": sentence}
    )


Whole = Annotated[int, Strict()]
Positive = Annotated[int, Strict(), Field(ge=1, le=2**31 - 1)]
Quantity = Annotated[
    str,
    BeforeValidator(_number_as_text),
    AfterValidator(_checked_quantity),
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "maxLength": LONGEST,
            "pattern": QUANTITY_PATTERN,
            "x-sentence": f"is not a Kubernetes quantity: {QUANTITY_SENTENCE}",
            "x-kubernetes-int-or-string": True,
        }
    ),
]
Duration = Annotated[
    str,
    BeforeValidator(_number_as_text),  # so that `2` is refused for its missing unit
    AfterValidator(_checked_duration),
    _text(DURATION_PATTERN, f"is not a duration: {DURATION_SENTENCE}", LONGEST),
]
Name = Annotated[str, _like(NAME_PATTERN, NAME_SENTENCE), _text(NAME_PATTERN, NAME_SENTENCE, 63)]
ObjectName = Annotated[
    str, _like(OBJECT_PATTERN, OBJECT_SENTENCE), _text(OBJECT_PATTERN, OBJECT_SENTENCE, 253)
]
LabelKey = Annotated[str, _like(LABEL_KEY_PATTERN, LABEL_KEY_SENTENCE)]
LabelValue = Annotated[
    str,
    _like(LABEL_VALUE_PATTERN, LABEL_VALUE_SENTENCE),
    _text(LABEL_VALUE_PATTERN, LABEL_VALUE_SENTENCE, 63),
]
Labels = Annotated[dict[LabelKey, LabelValue], Field(max_length=16)]
Image = Annotated[
    str, _like(IMAGE_PATTERN, IMAGE_SENTENCE), _text(IMAGE_PATTERN, IMAGE_SENTENCE, 512)
]
CacheUri = Annotated[
    str, _like(CACHE_PATTERN, CACHE_SENTENCE), _text(CACHE_PATTERN, CACHE_SENTENCE, 512)
]
ModelUri = Annotated[str, StringConstraints(max_length=1024), AfterValidator(_checked_uri)]
Free = Annotated[
    dict[str, Any],
    AfterValidator(_shallow),
    WithJsonSchema({"type": "object", "x-kubernetes-preserve-unknown-fields": True}),
]
"""A part of Kubernetes' own API, checked with Kubernetes' schema when a pod is made of it."""
