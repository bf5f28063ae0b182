"""From a resource to its children as they should be: pure, one function for each of them.

Each gives a whole object with labels and its owner; RenderError says what cannot be made.
"""

from stageline_api.rendering import RenderError, revision
from stageline_operator.render.metadata import owner_reference
from stageline_operator.render.profile import profile_pod, profile_subject, subject_of
from stageline_operator.render.router import (
    DOCUMENT_HASH,
    document_hash,
    router_budget,
    router_config,
    router_deployment,
    router_service,
)
from stageline_operator.render.secrets import authority_secret, certificate_secret, secret_data
from stageline_operator.render.stage import stage_labels, stage_pod
from stageline_operator.render.surroundings import (
    budget,
    revision_object,
    service_account,
    stages_service,
)

__all__ = [
    "DOCUMENT_HASH",
    "RenderError",
    "authority_secret",
    "budget",
    "certificate_secret",
    "document_hash",
    "owner_reference",
    "profile_pod",
    "profile_subject",
    "revision",
    "revision_object",
    "router_budget",
    "router_config",
    "router_deployment",
    "router_service",
    "secret_data",
    "service_account",
    "stage_labels",
    "stage_pod",
    "stages_service",
    "subject_of",
]
