"""Generate what follows from the models of the resource: its reference page and its CRD.

With --check, say whether the committed files are current.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from stageline_api.crd import crd
from stageline_api.quantity import DURATION_PATTERN
from stageline_api.resource import API_VERSION, KIND, PipelineDeployment

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "resource.md"
CRD = ROOT / "manifests" / "crd.yaml"
INTRODUCTION = f"""# The resource

Every field of `{KIND}` (`{API_VERSION}`), generated from the models in
`operator/stageline_api` by `scripts/gen_api.py`. A field that is not here is refused, and the
refusal says which one was probably meant. Quantities are Kubernetes' own (`80Gi`, `500m`);
durations have a unit (`2ms`, `1m30s`). A field without a default is empty when it is left out.
"""

Schema = dict[str, Any]


def page() -> str:
    """The whole page: one table for each part of the resource, in reading order."""
    schema = PipelineDeployment.model_json_schema(by_alias=True)
    lines = [INTRODUCTION]
    for path, part in parts(schema, schema["$defs"], ""):
        lines.append(f"## {path or KIND}\n\n{part['description']}\n")
        lines.append("| field | type | default | meaning |\n| --- | --- | --- | --- |")
        lines += [row(name, field, part, schema["$defs"]) for name, field in fields(part)]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def definition() -> str:
    """The CustomResourceDefinition as YAML."""
    head = "# Generated from operator/stageline_api by scripts/gen_api.py; do not edit.\n"
    return head + yaml.dump(crd(), Dumper=_Plain, sort_keys=False, width=100)


class _Plain(yaml.SafeDumper):
    """What stands in two places is written twice, not pointed at."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def parts(part: Schema, defs: dict[str, Schema], path: str) -> Iterator[tuple[str, Schema]]:
    """A part of the resource and all that are inside it, with the path of each."""
    yield path, part
    for name, field in fields(part):
        inside = inner(field)
        if inside is not None:
            reference, suffix = inside
            yield from parts(defs[reference], defs, f"{path}.{name}{suffix}".removeprefix("."))


def fields(part: Schema) -> list[tuple[str, Schema]]:
    return list(part["properties"].items())


def inner(field: Schema) -> tuple[str, str] | None:
    """Name of the part that a field holds, and [] when it holds a list of them."""
    if "$ref" in field:
        return field["$ref"].rsplit("/", 1)[1], ""
    if "anyOf" in field:
        return inner(field["anyOf"][0])
    found = inner(field["items"]) if field.get("type") == "array" else None
    return (found[0], "[]") if found else None


def row(name: str, field: Schema, part: Schema, defs: dict[str, Schema]) -> str:
    default = "required" if name in part.get("required", ()) else shown_default(field)
    return f"| `{name}` | {kind(field)} | {default} | {field.get('description', '')} |"


def shown_default(field: Schema) -> str:
    value = field.get("default")
    return "" if value in (None, "", [], {}) else f"`{value}`"


def kind(field: Schema) -> str:
    """The type of a field, in words."""
    if inside := inner(field):
        return "list of parts, below" if inside[1] else "part, below"
    if field.get("x-kubernetes-int-or-string"):
        return "quantity"
    if "anyOf" in field:
        return kind(field["anyOf"][0])
    if "enum" in field:
        return " \\| ".join(f"`{choice}`" for choice in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    if field["type"] == "array":
        return f"list: {kind(field['items'])}"
    if field.get("x-kubernetes-preserve-unknown-fields"):
        return "as in Kubernetes"
    if field["type"] == "object":
        return f"text to {kind(field['additionalProperties'])}"
    if field.get("pattern") == DURATION_PATTERN:
        return "duration"
    return {"integer": whole(field), "string": "text", "boolean": "true or false"}[field["type"]]


def whole(field: Schema) -> str:
    low = field.get("minimum", field.get("exclusiveMinimum"))
    high = field.get("maximum", field.get("exclusiveMaximum"))
    if high is None or high >= 2**31 - 1:
        return "whole number" if low is None else f"whole number from {low}"
    return f"whole number, {low} to {high - ('exclusiveMaximum' in field)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="change nothing, fail when not current"
    )
    check = parser.parse_args().check
    for path, text in {PAGE: page(), CRD: definition()}.items():
        if not check:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            sys.exit(f"{path.relative_to(ROOT)} is not current: run `make api` and commit")


if __name__ == "__main__":
    main()
