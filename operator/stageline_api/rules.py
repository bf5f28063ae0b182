"""What the API server checks across fields: CEL rules, each with what it means in Python.

The models refuse the same, with the same sentences, where there is no API server. CEL alone sees
what the resource was before (`oldSelf`), so what may never change is said only here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from typing import Any, Final

from stageline_api.pods import OWN_RESOURCES
from stageline_api.quantity import parse_quantity
from stageline_api.spec import MAX_STAGES
from stageline_api.uri import FORMS


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of x-kubernetes-validations."""

    cel: str
    holds: Callable[[Any, Any], bool]
    """The same of `self` and `oldSelf` (None at creation) as JSON with defaults filled in."""
    message: str
    expression: str = ""
    """CEL that gives the message with the values in it."""
    says: Callable[[Any, Any], str] | None = None
    """The same as `expression`, of `self` and `oldSelf`."""
    field: str = ""
    """Path of the field that is to blame, below the one that has the rule."""

    def refusal(self, new: Any, old: Any = None) -> str | None:
        """Why `new` is refused; None when it is not."""
        if (old is None and "oldSelf" in self.cel) or self.holds(new, old):
            return None
        return self.says(new, old) if self.says is not None else self.message

    def schema(self) -> dict[str, str]:
        """As it stands in the CRD."""
        made = {"rule": self.cel, "message": self.message}
        made |= {"messageExpression": self.expression} if self.expression else {}
        return made | ({"fieldPath": self.field} if self.field else {})


def matches(pattern: str, sentence: str) -> Rule:
    """Text that looks like `pattern`; the sentence says how that is."""
    return Rule(f"self.matches(r'{pattern}')", lambda new, _: _found(pattern, new), sentence)


def number_or_matches(pattern: str, sentence: str) -> Rule:
    """The same for an int-or-string, in which a number is never negative."""
    return Rule(
        f"type(self) == string ? self.matches(r'{pattern}') : self >= 0",
        lambda new, _: _found(pattern, new) if isinstance(new, str) else new >= 0,
        sentence,
    )


def _found(pattern: str, text: str) -> bool:
    return re.search(pattern, text, re.ASCII) is not None


def _known(spec: Any) -> int | None:
    pipeline = spec["pipeline"]
    return len(pipeline["partition"]) if "partition" in pipeline else pipeline.get("stages")


def _highest(spec: Any) -> int:
    stages = (max(entry["stages"]) for entry in spec.get("stageOverrides", ()))
    return max(stages, default=-1)


def _partition_agrees(spec: Any, _: Any) -> bool:
    pipeline = spec["pipeline"]
    return "stages" not in pipeline or _known(spec) == pipeline["stages"]


def _overrides_fit(spec: Any, _: Any) -> bool:
    known = _known(spec)
    return known is None or _highest(spec) < known


_CEL_KNOWN = "(has(self.pipeline.partition) ? size(self.pipeline.partition) : self.pipeline.stages)"
_CEL_HIGHEST = "self.stageOverrides.map(o, o.stages.max()).max()"

SPEC: Final = (
    Rule(
        "!has(self.pipeline.stages) || !has(self.pipeline.partition) || "
        "size(self.pipeline.partition) == self.pipeline.stages",
        _partition_agrees,
        "spec.pipeline.partition must have as many numbers as spec.pipeline.stages says: leave "
        "one of the two out, or make them agree",
        field=".pipeline.partition",
    ),
    Rule(
        "!has(self.stageOverrides) || size(self.stageOverrides) == 0 || "
        "!(has(self.pipeline.stages) || has(self.pipeline.partition)) || "
        f"{_CEL_HIGHEST} < {_CEL_KNOWN}",
        _overrides_fit,
        "spec.stageOverrides names a stage that the pipeline does not have: use one that it has, "
        "or raise spec.pipeline.stages",
        field=".stageOverrides",
    ),
    Rule(
        "self.rollout.maxSurge != 0 || self.rollout.maxUnavailable != 0",
        lambda spec, _: any(spec["rollout"][name] != 0 for name in ("maxSurge", "maxUnavailable")),
        "spec.rollout.maxSurge and spec.rollout.maxUnavailable are both 0, so no pipeline could "
        "ever be replaced: set one of them to 1",
        field=".rollout",
    ),
)
OVERRIDES: Final = (
    Rule(
        f"{list(range(MAX_STAGES))}.all(s, self.filter(o, s in o.stages).size() <= 1)",
        lambda overrides, _: _no_stage_twice(overrides),
        "spec.stageOverrides names a stage more than once: put all that is different for it into "
        "one entry",
    ),
)


def _no_stage_twice(overrides: Iterable[Any]) -> bool:
    named = list(chain.from_iterable(entry["stages"] for entry in overrides))
    return len(named) == len(set(named))


def _number(quantity: str | int) -> Fraction | None:
    """None for what another rule refuses."""
    try:
        return parse_quantity(str(quantity))
    except ValueError:
        return None


def _within_limits(resources: Any, _: Any) -> bool:
    limits = {name: _number(value) for name, value in resources.get("limits", {}).items()}
    requests = {name: _number(value) for name, value in resources.get("requests", {}).items()}
    return not any(
        asked is not None and (most := limits.get(name)) is not None and asked > most
        for name, asked in requests.items()
    )


def _whole_devices(resources: Mapping[str, Any], _: Any) -> bool:
    devices = (_number(value) for name, value in resources.items() if "/" in name)
    return all(number is None or number.denominator == 1 for number in devices)


def _known_resources(resources: Mapping[str, Any], _: Any) -> bool:
    return all(
        name in OWN_RESOURCES or name.startswith("hugepages-") or "/" in name for name in resources
    )


RESOURCES: Final = (
    Rule(
        "!has(self.requests) || !has(self.limits) || self.requests.all(name, !(name in "
        "self.limits) || !isQuantity(string(self.requests[name])) || "
        "!isQuantity(string(self.limits[name])) || quantity(string(self.requests[name]))"
        ".compareTo(quantity(string(self.limits[name]))) <= 0)",
        _within_limits,
        "requests more than it limits: lower the request, or raise the limit",
    ),
)
QUANTITIES: Final = (
    Rule(
        f"self.all(name, name in {list(OWN_RESOURCES)} || name.startsWith('hugepages-') || "
        "name.contains('/'))",
        _known_resources,
        f"has what is no resource of Kubernetes: write {', '.join(OWN_RESOURCES)}, or that of a "
        "device plugin with its domain, for example nvidia.com/gpu",
    ),
    Rule(
        "self.all(name, !name.contains('/') || !isQuantity(string(self[name])) || "
        "quantity(string(self[name])).isInteger())",
        _whole_devices,
        "has a part of a device, but devices are given out whole: write a whole number",
    ),
)
TOLERATION: Final = (
    Rule(
        "self.operator == 'Exists' ? self.value == '' : has(self.key)",
        lambda toleration, _: (
            toleration["value"] == "" if toleration["operator"] == "Exists" else "key" in toleration
        ),
        "has operator Exists and a value, or operator Equal and no key: Exists has no value, Equal "
        "has both",
    ),
    Rule(
        "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
        lambda toleration, _: (
            "tolerationSeconds" not in toleration or toleration.get("effect") == "NoExecute"
        ),
        "has tolerationSeconds, which only effect NoExecute has: set it, or leave them out",
    ),
)


def _well_formed(scheme: str, pattern: str, form: str) -> Rule:
    return Rule(
        f"!self.startsWith('{scheme}://') || self.matches(r'^{scheme}://{pattern}$')",
        lambda uri, _: not uri.startswith(f"{scheme}://") or _found(f"^{scheme}://{pattern}$", uri),
        f"is not well formed: write {form}",
    )


def _repository(uri: str) -> str:
    return uri.split("@")[0]


URI: Final = (
    Rule(
        "self.matches(r'^(hf|pvc|s3|file)://')",
        lambda uri, _: _found("^(hf|pvc|s3|file)://", uri),
        "names no place of a checkpoint: use hf://, pvc://, s3:// or file://",
    ),
    *(_well_formed(scheme, pattern, form) for scheme, (pattern, form) in FORMS.items()),
    Rule(
        "self.startsWith('file://') || !self.split('/').exists(part, part == '..')",
        lambda uri, _: uri.startswith("file://") or ".." not in uri.split("/"),
        "is not well formed: it has .. in it, write the folder itself",
    ),
    Rule(
        "!self.startsWith('hf://') || !oldSelf.startsWith('hf://') || "
        "self.split('@')[0] == oldSelf.split('@')[0]",
        lambda uri, old: (
            not (uri.startswith("hf://") and old.startswith("hf://"))
            or _repository(uri) == _repository(old)
        ),
        "may change its @revision but not its repository: make another PipelineDeployment",
        "'may change its @revision but not its repository, ' + oldSelf.split('@')[0] + ': make "
        "another PipelineDeployment for another model'",
        lambda _, old: (
            f"may change its @revision but not its repository, {_repository(old)}: make another "
            "PipelineDeployment for another model"
        ),
    ),
)
