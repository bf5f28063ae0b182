"""The labels and annotations by which children are found, and the user finds them."""

from __future__ import annotations

from typing import Final

NAME: Final = "app.kubernetes.io/name"
INSTANCE: Final = "app.kubernetes.io/instance"
COMPONENT: Final = "app.kubernetes.io/component"
MANAGED_BY: Final = "app.kubernetes.io/managed-by"
PART_OF: Final = "app.kubernetes.io/part-of"

OWNER: Final = "stageline.dev/deployment"
"""Name of the PipelineDeployment. The operator watches what has it, and nothing else."""
REVISION: Final = "stageline.dev/revision"
PIPELINE: Final = "stageline.dev/pipeline"
"""Index of the pipeline in its revision."""
STAGE: Final = "stageline.dev/stage"

APPLIED: Final = "stageline.dev/applied"
"""Annotation: hash of what the operator applied last; another hash is an older wish."""

SUBJECT: Final = "stageline.dev/profile-subject"
"""Annotation of a profile pod: pods that have the same in a namespace read the same."""

STAGE_COMPONENT: Final = "stage"
ROUTER_COMPONENT: Final = "router"
PROFILE_COMPONENT: Final = "profile"
APP: Final = "stageline"
FIELD_MANAGER: Final = "stageline"


def common(owner: str, component: str) -> dict[str, str]:
    """What every child of `owner` carries."""
    return {
        NAME: APP,
        INSTANCE: owner,
        COMPONENT: component,
        MANAGED_BY: FIELD_MANAGER,
        PART_OF: APP,
        OWNER: owner,
    }
