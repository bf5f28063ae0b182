"""Where a checkpoint is: hf://, pvc://, s3:// and file:// addresses, checked and resolved."""

from __future__ import annotations

import re
from pathlib import PurePath

# Of what follows the scheme: how it looks, in what RE2 reads as well, and how people write it.
FORMS = {
    "hf": (r"[\w.-]+(/[\w.-]+)?(@[\w./-]+)?", "hf://owner/model or hf://owner/model@revision"),
    "pvc": (r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?(/\S*)?", "pvc://claim/folder"),
    "s3": (r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/\S*)?", "s3://bucket/folder"),
    "file": (r"(/|\.{1,2}/)[^\x00\r\n]*", "file:///folder or file://./folder"),
}


def check_uri(uri: str) -> None:
    """ValueError, to be read after the field's name, when `uri` names no checkpoint."""
    scheme, separator, rest = uri.partition("://")
    if not separator:
        raise ValueError(
            f"has no scheme: {uri!r}; write where the checkpoint is, as {_one_of(FORMS)}"
        )
    if scheme not in FORMS:
        raise ValueError(f"has the unknown scheme {scheme}://; use {_one_of(FORMS)}")
    pattern, form = FORMS[scheme]
    climbs = scheme != "file" and ".." in rest.split("/")
    if climbs or not re.fullmatch(pattern, rest, re.ASCII):
        raise ValueError(f"is not well formed: {uri!r}; write {form}")


def _one_of(schemes: dict[str, tuple[str, str]]) -> str:
    *first, last = (f"{scheme}://" for scheme in schemes)
    return f"{', '.join(first)} or {last}"


def resolve_uri(uri: str, folder: PurePath) -> str:
    """`uri` with a relative file path taken from `folder`; every other address as it is."""
    path = uri.removeprefix("file://")
    if path == uri or path.startswith("/"):
        return uri
    return f"file://{_normal(folder / path).as_posix()}"


def _normal(path: PurePath) -> PurePath:
    """`path` without `.` and `..`, as text: links are not followed, nothing is read."""
    parts: list[str] = []
    for part in path.parts:
        if part == ".." and parts and parts[-1] not in ("..", path.anchor):
            parts.pop()
        elif part != ".." or not path.anchor:
            parts.append(part)
    return PurePath(*parts)
