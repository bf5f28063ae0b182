"""docs/generation.md tells of each option what the router takes."""

from __future__ import annotations

from pathlib import Path

from annotated_types import Ge, Le

from stageline_router.asking import generation_inputs, generation_outputs
from stageline_router.options import GenerationOptions

PAGE = Path(__file__).resolve().parents[2] / "docs" / "generation.md"


def rows() -> list[str]:
    """A table row for each option."""
    return [
        f"| `{name}` | {told(field.default)} | {limits(field.metadata)} | {field.description} |"
        for name, field in GenerationOptions.model_fields.items()
    ]


def told(default: object) -> str:
    return "" if default in (None, ()) or isinstance(default, bool) else f"`{default}`"


def limits(metadata: list[object]) -> str:
    low = [limit.ge for limit in metadata if isinstance(limit, Ge)]
    high = [limit.le for limit in metadata if isinstance(limit, Le)]
    if not low:
        return ""
    if high[0] < 2**31 - 1:
        return f"{low[0]:g} to {high[0]:g}"
    return f"{low[0]:g} and more" if low[0] >= -1 else "any"


def test_the_table_is_the_routers_own():
    page = PAGE.read_text()
    missing = [row for row in rows() if row not in page]
    assert not missing, "docs/generation.md lacks these rows:\n" + "\n".join(missing)
    known = sum(line.startswith("| `") and line.count("|") == 5 for line in page.splitlines())
    assert known == len(rows()), "docs/generation.md has rows of options that there are not"


def test_every_input_and_output_is_named():
    page = PAGE.read_text()
    names = [name for name, *_ in (*generation_inputs(chat=True), *generation_outputs())]
    assert not [name for name in names if f"`{name}`" not in page]
