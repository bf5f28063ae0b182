"""What a spec says of pods: their resources, where they may run, and patches of them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from stageline_api.quantity import parse_quantity
from stageline_api.schema import (
    Free,
    LabelKey,
    Labels,
    LabelValue,
    Positive,
    Quantity,
    SpecModel,
    Whole,
)

OWN_RESOURCES = ("cpu", "memory", "ephemeral-storage")

Quantities = Annotated[dict[LabelKey, Quantity], Field(max_length=32)]


class ContainerResources(SpecModel):
    """What a pod asks for and may use."""

    limits: Quantities = Field(
        default_factory=dict, description="Most that the pod may use, for example nvidia.com/gpu."
    )
    requests: Quantities = Field(
        default_factory=dict, description="What the scheduler sets aside for the pod."
    )

    @model_validator(mode="after")
    def _pods_can_have_them(self) -> ContainerResources:
        for name, quantity in (*self.limits.items(), *self.requests.items()):
            _check_resource(name, quantity)
        for name, requested in self.requests.items():
            limit = self.limits.get(name)
            if limit is not None and parse_quantity(requested) > parse_quantity(limit):
                raise ValueError(
                    f"requests {requested} of {name} but limits it to {limit}: lower the request, "
                    "or raise the limit"
                )
        return self


class Resources(ContainerResources):
    """What a stage's pod asks for and may use."""

    device_memory: Quantity | None = Field(
        default=None,
        description="Memory of the stage's device, which the plan must fit in, for example 80Gi; "
        "absent is the memory limit of a stage without GPU, or what the smallest node that fits "
        "has in its label nvidia.com/gpu.memory, otherwise unknown.",
    )


def _check_resource(name: str, quantity: str) -> None:
    if "/" in name:
        if parse_quantity(quantity).denominator != 1:
            raise ValueError(
                f"has {quantity} of {name}, but devices are given out whole: write a whole number"
            )
    elif name not in OWN_RESOURCES and not name.startswith("hugepages-"):
        raise ValueError(
            f"has {name}, which is no resource of Kubernetes: write {', '.join(OWN_RESOURCES)}, "
            "or that of a device plugin with its domain, for example nvidia.com/gpu"
        )


class Toleration(SpecModel):
    """As in a PodSpec."""

    key: LabelKey | None = Field(default=None, description="Of the taint; absent is every taint.")
    operator: Literal["Exists", "Equal"] = Field(
        default="Equal", description="Equal compares the value, Exists takes any."
    )
    value: LabelValue = Field(default="", description="Of the taint.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="Of the taint; absent is every effect."
    )
    toleration_seconds: Annotated[Whole, Field(ge=0)] | None = Field(
        default=None, description="How long a NoExecute taint is tolerated; absent is for ever."
    )

    @model_validator(mode="after")
    def _agrees(self) -> Toleration:
        if self.operator == "Exists" and self.value:
            raise ValueError(f"has operator Exists and value {self.value}: leave one of them out")
        if self.operator == "Equal" and self.key is None:
            raise ValueError("has no key: give it one, or operator Exists to tolerate every taint")
        if self.toleration_seconds is not None and self.effect != "NoExecute":
            raise ValueError(
                "has tolerationSeconds, which only effect NoExecute has: set it, or leave them out"
            )
        return self


class LabelRequirement(SpecModel):
    """As in a LabelSelector."""

    key: LabelKey = Field(description="Name of the label.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = Field(
        description="How its value is compared."
    )
    values: Annotated[tuple[LabelValue, ...], Field(max_length=16)] = Field(
        default=(), description="For In and NotIn."
    )


class LabelSelector(SpecModel):
    """Which pods are meant, as in Kubernetes."""

    match_labels: Labels = Field(default_factory=dict, description="Labels that they have.")
    match_expressions: Annotated[tuple[LabelRequirement, ...], Field(max_length=16)] = Field(
        default=(), description="What else is so of their labels."
    )


class Spread(SpecModel):
    """A topology spread constraint, as in a PodSpec."""

    max_skew: Positive = Field(default=1, description="Most pods by which two places may differ.")
    topology_key: LabelKey = Field(
        description="Label of nodes; those with the same value are one place."
    )
    when_unsatisfiable: Literal["DoNotSchedule", "ScheduleAnyway"] = Field(
        description="Whether a pod waits when it cannot be."
    )
    label_selector: LabelSelector | None = Field(
        default=None, description="Pods that count; absent are the stages of this resource."
    )


class PodTemplateMetadata(SpecModel):
    """What a patch adds to a pod beside its spec."""

    labels: Labels = Field(default_factory=dict, description="Labels of the pod.")
    annotations: Annotated[dict[LabelKey, str], Field(max_length=64)] = Field(
        default_factory=dict, description="Annotations of the pod."
    )


class PodTemplate(SpecModel):
    """A strategic merge patch of pods, as kubectl patch takes it."""

    metadata: PodTemplateMetadata = Field(
        default_factory=PodTemplateMetadata, description="Labels and annotations."
    )
    spec: Free = Field(
        default_factory=dict,
        description="Fields of a PodSpec: lists are merged by name, null and $patch: delete "
        "remove.",
    )
