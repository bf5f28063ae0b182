"""Read a manifest: YAML in, a PipelineDeployment out, or sentences that say what is wrong."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

import yaml
from pydantic import ValidationError

from stageline_api.resource import API_VERSION, KIND, PipelineDeployment
from stageline_api.sentences import Path, sentence, shown
from stageline_api.uri import resolve_uri

MAX_CHARACTERS = 1024 * 1024


class ManifestError(Exception):
    """A manifest that cannot be used. `problems` has one sentence each, `str` one line each."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def read_manifest(text: str, source: str) -> PipelineDeployment:
    """The PipelineDeployment in `text`; `source` names the text in errors (ManifestError)."""
    if len(text) > MAX_CHARACTERS:
        raise ManifestError(f"{source} is larger than a manifest may be ({MAX_CHARACTERS} bytes)")
    root = _compose(text, source)
    _refuse_repeated_keys(root, source)
    document = _construct(root, source)
    _check_kind(document, source)
    try:
        return PipelineDeployment.model_validate(document, by_name=False)
    except ValidationError as error:
        raise ManifestError(*_problems(error, root, source)) from None


def resolve_model(deployment: PipelineDeployment, folder: PurePath) -> PipelineDeployment:
    """`deployment` with a relative file:// address taken from `folder`, the manifest's own."""
    model = deployment.spec.model
    resolved = model.model_copy(update={"uri": resolve_uri(model.uri, folder)})
    spec = deployment.spec.model_copy(update={"model": resolved})
    return deployment.model_copy(update={"spec": spec})


def _problems(error: ValidationError, root: yaml.Node, source: str) -> list[str]:
    """One sentence for each thing that is wrong, in the order of the lines."""
    details = error.errors(include_url=False)
    paths = [detail["loc"] for detail in details]
    lines = [(_line(root, path), detail) for path, detail in zip(paths, details, strict=True)]
    return [
        f"{source}:{line}: {sentence(detail, PipelineDeployment)}"
        for line, detail in sorted(lines, key=lambda pair: pair[0])
        # A list is "too short" as well when its entries were refused: that is said of them.
        if detail["type"] != "too_short"
        or not any(
            len(path) > len(detail["loc"]) and path[: len(detail["loc"])] == detail["loc"]
            for path in paths
        )
    ]


def _compose(text: str, source: str) -> yaml.Node:
    try:
        nodes = [node for node in yaml.compose_all(text, Loader=yaml.SafeLoader) if _holds(node)]
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark is not None else 1
        raise ManifestError(f"{source}:{line}: this is not YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise ManifestError(f"{source} is not YAML: {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise ManifestError(f"{source} is nested too deeply to be a manifest") from None
    if not nodes:
        raise ManifestError(f"{source} is empty: write a {KIND} into it")
    if len(nodes) > 1:
        line = nodes[1].start_mark.line + 1
        raise ManifestError(
            f"{source}:{line}: a second document starts here: put one {KIND} in a file"
        )
    return nodes[0]


def _holds(node: yaml.Node | None) -> bool:
    """Whether a document has anything in it: `---` alone makes an empty one."""
    return node is not None and not (isinstance(node, yaml.ScalarNode) and node.value == "")


def _construct(root: yaml.Node, source: str) -> Any:
    constructor = yaml.constructor.SafeConstructor()
    try:
        return constructor.construct_document(root)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark is not None else 1
        raise ManifestError(f"{source}:{line}: {error.problem}") from None
    except ValueError as error:
        raise ManifestError(f"{source} has a value that cannot be read: {error}") from None


def _check_kind(document: Any, source: str) -> None:
    if not isinstance(document, dict):
        raise ManifestError(f"{source} must be a {KIND}, not {shown(document)}")
    kind, version = document.get("kind"), document.get("apiVersion")
    if kind != KIND:
        raise ManifestError(f"{source}: kind must be {KIND}, not {shown(kind)}")
    if version != API_VERSION:
        raise ManifestError(f"{source}: apiVersion must be {API_VERSION}, not {shown(version)}")


def _refuse_repeated_keys(root: yaml.Node, source: str) -> None:
    """YAML readers silently take the last of two equal keys: one of them was a mistake."""
    waiting, seen = [root], {id(root)}
    while waiting:
        node = waiting.pop()
        if isinstance(node, yaml.MappingNode):
            keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            if repeated := _repeated(keys):
                line = repeated.start_mark.line + 1
                raise ManifestError(
                    f"{source}:{line}: {shown(repeated.value)} stands here a second time"
                )
        for child in _children(node):
            if id(child) not in seen:  # an alias is the node that it stands for
                seen.add(id(child))
                waiting.append(child)


def _repeated(keys: list[yaml.ScalarNode]) -> yaml.ScalarNode | None:
    known: set[str] = set()
    for key in keys:
        if key.value in known:
            return key
        known.add(key.value)
    return None


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [value for _, value in node.value]
    return node.value if isinstance(node, yaml.SequenceNode) else []


def _line(root: yaml.Node, path: Path) -> int:
    """The line of what `path` names, or of the innermost thing around it that is there."""
    node, line = root, root.start_mark.line
    for part in path:
        if isinstance(node, yaml.MappingNode):
            found = next((pair for pair in node.value if pair[0].value == part), None)
            if found is None:
                break
            line, node = found[0].start_mark.line, found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            node = node.value[part]
            line = node.start_mark.line
    return line + 1
