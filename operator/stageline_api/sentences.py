"""What pydantic found wrong, said in a user's words: one sentence each, with the field's path."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

Path = tuple[str | int, ...]

_LONGEST = 80  # characters of a user's own text in a sentence
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
_LENGTHS = {
    "string_too_long": "must have at most {max_length} characters",
    "too_long": "must have at most {max_length} entries",
    "too_short": "is an empty list: give it entries, or leave it out",
}


def sentence(error: ErrorDetails, model: type[BaseModel]) -> str:
    """One error of validating `model`, as a sentence that says what to do."""
    kind, path, value = error["type"], error["loc"], error["input"]
    if kind in _MUST_BE:
        return _wrong_type(path, _MUST_BE[kind], value)
    if kind in _ENDS:
        bound, words = _ENDS[kind]
        return f"{dotted(path)} must be {words} {error['ctx'][bound]}, not {shown(value)}"
    if kind in _LENGTHS:
        return f"{dotted(path)} {_LENGTHS[kind].format(**error['ctx'])}"
    return _other(error, model)


def _other(error: ErrorDetails, model: type[BaseModel]) -> str:
    path, value, context = error["loc"], error["input"], error.get("ctx", {})
    match error["type"]:
        case "sentence":
            return str(context["sentence"])
        case "value_error":
            return f"{dotted(path)} {context['error']}"
        case "extra_forbidden":
            return _unknown_field(path, model)
        case "missing":
            return _missing(path, model)
        case "literal_error":
            return f"{dotted(path)} must be {_choices(path, model)}, not {shown(value)}"
    return f"{dotted(path)}: {error['msg']}, not {shown(value)}"


def dotted(path: Path) -> str:
    """spec.pipeline.partition[1]"""
    if path[-1:] == ("[key]",):  # pydantic's mark for the name of an entry
        return f"a name in {dotted(path[:-2])}"
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{_word(part)}" for part in path)
    return text.removeprefix(".")


def _word(part: str) -> str:
    """A name as the user wrote it, unless it would break the sentence."""
    return part if part.isprintable() and len(part) <= _LONGEST else shown(part)


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
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


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


def _unknown_field(path: Path, model: type[BaseModel]) -> str:
    *parents, name = path
    fields = _fields_at(model, tuple(parents))
    start = f"{dotted(path)} is not a field of {model.__name__}"
    if meant := did_you_mean(str(name)[:_LONGEST], list(fields)):
        return f"{start}: did you mean {dotted((*parents, meant))}?"
    where = dotted(tuple(parents)) or "it"
    return f"{start}: {where} has {', '.join(fields)}"


def _missing(path: Path, model: type[BaseModel]) -> str:
    field = _fields_at(model, path[:-1]).get(str(path[-1]))
    what = field.description if field is not None and field.description else "it is needed"
    return f"{dotted(path)} is missing: {what[0].lower()}{what[1:].rstrip('.')}"


def _choices(path: Path, model: type[BaseModel]) -> str:
    field = _fields_at(model, path[:-1]).get(str(path[-1]))
    known = list(_literals(field.annotation)) if field is not None else []
    *first, last = known or ["something else"]
    return f"{', '.join(first)} or {last}" if first else last


def _literals(annotation: Any) -> Iterator[str]:
    """What `Literal["a", "b"]` or `Literal["a", "b"] | None` allows."""
    for part in get_args(annotation):
        yield from [part] if isinstance(part, str) else _literals(part)


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
