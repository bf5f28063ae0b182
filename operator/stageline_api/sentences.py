"""What pydantic found wrong, said in a user's words: one sentence each, with the field's path."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

Path = tuple[str | int, ...]

_ENDS = {
    "greater_than_equal": ("ge", "at least"),
    "less_than_equal": ("le", "at most"),
    "greater_than": ("gt", "more than"),
    "less_than": ("lt", "less than"),
}
_MUST_BE = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "string_type": "text",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping of names to values",
    "mapping_type": "a mapping of names to values",
    "model_type": "a mapping of fields",
    "model_attributes_type": "a mapping of fields",
}


def sentence(error: ErrorDetails, model: type[BaseModel]) -> str:
    """One error of validating `model`, as a sentence that says what to do."""
    kind, path, context = error["type"], error["loc"], error.get("ctx", {})
    if kind == "sentence":
        return str(context["sentence"])
    if kind in _MUST_BE:
        return _wrong_type(path, _MUST_BE[kind], error["input"])
    if kind in _ENDS:
        bound, words = _ENDS[kind]
        return f"{dotted(path)} must be {words} {context[bound]}, not {shown(error['input'])}"
    say = _SAY.get(kind, _say_as_is)
    return say(path, error, context, model)


def dotted(path: Path) -> str:
    """spec.pipeline.partition[1]"""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def shown(value: Any) -> str:
    """A value as it may stand in a sentence: short, and never the inside of a container."""
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple | set):
        return "a list"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def did_you_mean(word: str, known: Sequence[str]) -> str | None:
    """The known word that `word` most likely stands for."""
    plain = {name.lower(): name for name in known}
    close = get_close_matches(word.lower().replace("_", ""), list(plain), n=1, cutoff=0.6)
    return plain[close[0]] if close else None


def _wrong_type(path: Path, wanted: str, value: Any) -> str:
    where = dotted(path) or "the document"
    if value is None:
        return f"{where} is empty: give it {wanted}, or leave it out"
    advice = ""
    if wanted == "text" and not isinstance(value, dict | list):
        advice = ": put it in quotes"
    return f"{where} must be {wanted}, not {shown(value)}{advice}"


def _say_unknown_field(
    path: Path, error: ErrorDetails, context: Mapping[str, Any], model: type[BaseModel]
) -> str:
    *parents, name = path
    fields = _fields_at(model, tuple(parents))
    start = f"{dotted(path)} is not a field of {model.__name__}"
    if meant := did_you_mean(str(name)[:80], list(fields)):
        return f"{start}: did you mean {dotted((*parents, meant))}?"
    where = dotted(tuple(parents)) or "it"
    return f"{start}: {where} has {', '.join(fields)}"


def _say_missing(
    path: Path, error: ErrorDetails, context: Mapping[str, Any], model: type[BaseModel]
) -> str:
    field = _fields_at(model, path[:-1]).get(str(path[-1]))
    what = field.description if field is not None and field.description else "it is needed"
    return f"{dotted(path)} is missing: {what[0].lower()}{what[1:].rstrip('.')}"


def _say_choice(
    path: Path, error: ErrorDetails, context: Mapping[str, Any], model: type[BaseModel]
) -> str:
    field = _fields_at(model, path[:-1]).get(str(path[-1]))
    choices = _choices(field.annotation) if field is not None else []
    return f"{dotted(path)} must be {_either(choices)}, not {shown(error['input'])}"


def _say_pattern(
    path: Path, error: ErrorDetails, context: Mapping[str, Any], model: type[BaseModel]
) -> str:
    return (
        f"{dotted(path)} must be lower case letters, digits and '-', start and end with a letter "
        f"or digit and have at most 63 characters, not {shown(error['input'])}"
    )


def _say_length(
    path: Path, error: ErrorDetails, context: Mapping[str, Any], model: type[BaseModel]
) -> str:
    if error["type"] == "string_too_long":
        return f"{dotted(path)} must have at most {context['max_length']} characters"
    if error["type"] == "too_long":
        return f"{dotted(path)} must have at most {context['max_length']} entries"
    return f"{dotted(path)} is an empty list: give it entries, or leave it out"


def _say_value(
    path: Path, error: ErrorDetails, context: Mapping[str, Any], model: type[BaseModel]
) -> str:
    return f"{dotted(path)} {context['error']}"


def _say_as_is(
    path: Path, error: ErrorDetails, context: Mapping[str, Any], model: type[BaseModel]
) -> str:
    return f"{dotted(path)}: {error['msg']}, not {shown(error['input'])}"


_SAY: dict[str, Callable[[Path, ErrorDetails, Mapping[str, Any], type[BaseModel]], str]] = {
    "extra_forbidden": _say_unknown_field,
    "missing": _say_missing,
    "literal_error": _say_choice,
    "string_pattern_mismatch": _say_pattern,
    "string_too_long": _say_length,
    "too_long": _say_length,
    "too_short": _say_length,
    "value_error": _say_value,
}


def _fields_at(model: type[BaseModel], path: Path) -> dict[str, FieldInfo]:
    """The fields, by the name that users write, of the model at `path` inside `model`."""
    for part in path:
        if isinstance(part, int):
            continue
        field = _named(model).get(part)
        inner = _model_in(field.annotation) if field is not None else None
        if inner is None:
            return {}
        model = inner
    return _named(model)


def _named(model: type[BaseModel]) -> dict[str, FieldInfo]:
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model that an annotation such as `tuple[StageOverride, ...]` or `X | None` holds."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)


def _choices(annotation: Any) -> list[str]:
    return [choice for choice in get_args(annotation) if isinstance(choice, str)]


def _either(choices: Sequence[str]) -> str:
    *first, last = choices or ["something else"]
    return f"{', '.join(first)} or {last}" if first else last
