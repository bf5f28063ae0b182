"""The resource: kind PipelineDeployment of stageline.dev/v1alpha1."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from stageline_api.schema import Name, SpecModel
from stageline_api.spec import PipelineDeploymentSpec
from stageline_api.status import PipelineDeploymentStatus

API_VERSION: Final = "stageline.dev/v1alpha1"
KIND: Final = "PipelineDeployment"


def _empty_if_none(value: Any) -> Any:
    """`labels:` with nothing after it is null in YAML, and Kubernetes takes it as empty."""
    return {} if value is None else value


class Metadata(SpecModel):
    """The name of the resource and what Kubernetes keeps beside it; the rest is passed over."""

    model_config = ConfigDict(extra="ignore")

    name: Name = Field(
        description="Name of the resource, and of the model for clients: lower case letters, "
        "digits and '-', at most 63."
    )
    namespace: Name = Field(default="default", description="Namespace that it lives in.")
    labels: Annotated[dict[str, str], BeforeValidator(_empty_if_none)] = Field(
        default_factory=dict, description="Labels of the resource."
    )
    annotations: Annotated[dict[str, str], BeforeValidator(_empty_if_none)] = Field(
        default_factory=dict, description="Annotations of the resource."
    )


class PipelineDeployment(SpecModel):
    """A model, cut into pipeline stages, served over the Open Inference Protocol."""

    api_version: Literal["stageline.dev/v1alpha1"] = Field(
        default=API_VERSION, description="Version of this schema."
    )
    kind: Literal["PipelineDeployment"] = Field(default=KIND, description="Kind of the resource.")
    metadata: Metadata = Field(description="Its name and labels.")
    spec: PipelineDeploymentSpec = Field(description="What is asked for.")
    status: PipelineDeploymentStatus = Field(
        default_factory=PipelineDeploymentStatus,
        description="What is; the operator writes it.",
    )
