"""What the API server checks across fields: CEL rules, with the sentences of the models.

CEL alone sees what the resource was before (`oldSelf`), so what may never change is said only here.
An API server refuses rules that could cost it too much: hence the bounds of lists in the models.
"""

from __future__ import annotations

from typing import Any, Final

from stageline_api.pods import OWN_RESOURCES
from stageline_api.spec import MAX_STAGES
from stageline_api.uri import FORMS

Rules = list[dict[str, Any]]


def matches(pattern: str, sentence: str) -> Rules:
    """Text that looks like `pattern`; the sentence says how that is."""
    return [{"rule": f"self.matches(r'{pattern}')", "message": sentence}]


def number_or_matches(pattern: str, sentence: str) -> Rules:
    """The same for an int-or-string, in which a number is never negative."""
    rule = f"type(self) == string ? self.matches(r'{pattern}') : self >= 0"
    return [{"rule": rule, "message": sentence}]


SPEC: Final[Rules] = [
    {
        "rule": "!has(self.pipeline.stages) || !has(self.pipeline.partition) || "
        "size(self.pipeline.partition) == self.pipeline.stages",
        "message": "spec.pipeline.partition must have as many numbers as spec.pipeline.stages "
        "says: leave one of the two out, or make them agree",
        "fieldPath": ".pipeline.partition",
    },
    {
        "rule": "!has(self.stageOverrides) || size(self.stageOverrides) == 0 || "
        "!(has(self.pipeline.stages) || has(self.pipeline.partition)) || "
        "self.stageOverrides.map(o, o.stages.max()).max() < "
        "(has(self.pipeline.partition) ? size(self.pipeline.partition) : self.pipeline.stages)",
        "message": "spec.stageOverrides names a stage that the pipeline does not have: use one "
        "that it has, or raise spec.pipeline.stages",
        "fieldPath": ".stageOverrides",
    },
    {
        "rule": "self.rollout.maxSurge != 0 || self.rollout.maxUnavailable != 0",
        "message": "spec.rollout.maxSurge and spec.rollout.maxUnavailable are both 0, so no "
        "pipeline could ever be replaced: set one of them to 1",
        "fieldPath": ".rollout",
    },
]
# Stage by stage, since comparing every entry with every other costs too much.
OVERRIDES: Final[Rules] = [
    {
        "rule": f"{list(range(MAX_STAGES))}.all(s, self.filter(o, s in o.stages).size() <= 1)",
        "message": "spec.stageOverrides names a stage more than once: put all that is different "
        "for it into one entry",
    }
]
RESOURCES: Final[Rules] = [
    {
        "rule": "!has(self.requests) || !has(self.limits) || self.requests.all(name, "
        "!(name in self.limits) || !isQuantity(string(self.requests[name])) || "
        "!isQuantity(string(self.limits[name])) || quantity(string(self.requests[name]))"
        ".compareTo(quantity(string(self.limits[name]))) <= 0)",
        "message": "requests more than it limits: lower the request, or raise the limit",
    }
]
QUANTITIES: Final[Rules] = [
    {
        "rule": f"self.all(name, name in {list(OWN_RESOURCES)} || name.startsWith('hugepages-') "
        "|| name.contains('/'))",
        "message": f"has what is no resource of Kubernetes: write {', '.join(OWN_RESOURCES)}, or "
        "that of a device plugin with its domain, for example nvidia.com/gpu",
    },
    {
        "rule": "self.all(name, !name.contains('/') || !isQuantity(string(self[name])) || "
        "quantity(string(self[name])).isInteger())",
        "message": "has a part of a device, but devices are given out whole: write a whole number",
    },
]
TOLERATION: Final[Rules] = [
    {
        "rule": "self.operator == 'Exists' ? self.value == '' : has(self.key)",
        "message": "has operator Exists and a value, or operator Equal and no key: Exists has no "
        "value, Equal has both",
    },
    {
        "rule": "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
        "message": "has tolerationSeconds, which only effect NoExecute has: set it, or leave them "
        "out",
    },
]
MODEL: Final[Rules] = [
    {
        "rule": "!has(self.cache) || self.uri.startsWith('hf://') || self.uri.startsWith('s3://')",
        "message": "spec.model.cache keeps what is downloaded of hf:// and s3://, but "
        "spec.model.uri is read where it is: leave spec.model.cache out",
        "fieldPath": ".cache",
    }
]
URI: Final[Rules] = [
    {
        "rule": "self.matches(r'^(hf|pvc|s3|file)://')",
        "message": "names no place of a checkpoint: use hf://, pvc://, s3:// or file://",
    },
    *(
        {
            "rule": f"!self.startsWith('{scheme}://') || self.matches(r'^{scheme}://{pattern}$')",
            "message": f"is not well formed: write {form}",
        }
        for scheme, (pattern, form) in FORMS.items()
    ),
    {
        "rule": "self.startsWith('file://') || !self.split('/').exists(part, part == '..')",
        "message": "is not well formed: it has .. in it, write the folder itself",
    },
    {
        "rule": "!self.startsWith('hf://') || !oldSelf.startsWith('hf://') || "
        "self.split('@')[0] == oldSelf.split('@')[0]",
        "message": "may change its @revision but not its repository: make another "
        "PipelineDeployment",
        "messageExpression": "'may change its @revision but not its repository, ' + "
        "oldSelf.split('@')[0] + ': make another PipelineDeployment for another model'",
    },
]
