"""From a resource to the profile of its model: known, read by a pod, or to be read. Pure.

A profile is taken once: its pod is made, ends with the profile as its termination message, and is
deleted when the profile stands in the record of a revision. Later revisions of the same model take
it from there, and other resources that ask for it meanwhile from what is told of it
(stageline_operator.profiles).
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from stageline_api.profile import ModelProfile
from stageline_api.resource import PipelineDeployment
from stageline_operator.decision import Reading
from stageline_operator.kinds import Object
from stageline_operator.observed import RevisionRecord, SharedProfile
from stageline_operator.render import profile_pod, profile_subject, subject_of
from stageline_operator.settings import RenderSettings

_LARGEST_PROFILE = 4 << 20


@dataclass(frozen=True, slots=True)
class Profiling:
    """The profile, or how it is come by."""

    profile: ModelProfile | None = None
    pod: Object | None = None
    """The own pod that takes it, as it should be; None where none is needed."""
    complaint: str = ""
    """Why what the pod wrote cannot be used, a sentence."""
    reading: Reading | None = None
    """What this means for others who want the same."""
    again: float | None = None
    """Seconds for which the pod of another resource is waited for."""


def profiling(
    resource: Object,
    deployment: PipelineDeployment,
    known: list[RevisionRecord],
    pods: Mapping[str, Object],
    profiles: Mapping[str, SharedProfile],
    settings: RenderSettings,
) -> Profiling:
    """`known` are the records of its revisions, `pods` its own by name, `profiles` those of others
    by subject; RenderError when the model cannot be read.
    """
    if (profile := _known_profile(deployment, known)) is not None:
        return Profiling(profile)
    pod = profile_pod(resource, deployment, settings)
    subject, own = subject_of(pod), pods.get(pod["metadata"]["name"])
    profile, complaint = _fresh_profile(own)
    if profile is not None:
        return Profiling(profile, pod, reading=Reading(subject, profile=profile))
    shared = profiles.get(subject)
    if shared is not None and shared.profile is not None:
        return Profiling(shared.profile)
    if own is not None:
        return Profiling(pod=pod, complaint=complaint)
    if shared is not None:
        return Profiling(pod=pod, reading=Reading(subject, own=False), again=shared.wait)
    return Profiling(pod=pod, reading=Reading(subject))


def read_profile(message: str) -> ModelProfile:
    """The profile in a termination message: base64 of zlib of its JSON; ValueError otherwise."""
    packed = base64.b64decode(message, validate=True)
    opened = zlib.decompressobj()
    text = opened.decompress(packed, _LARGEST_PROFILE)
    return ModelProfile.model_validate_json(text)


def _known_profile(
    deployment: PipelineDeployment, known: list[RevisionRecord]
) -> ModelProfile | None:
    subject = profile_subject(deployment)
    for record in reversed(known):
        before = deployment.model_copy(update={"spec": record.spec})
        if profile_subject(before) == subject:
            return record.profile
    return None


def _fresh_profile(pod: Object | None) -> tuple[ModelProfile | None, str]:
    ended = _ended(pod)
    if ended is None or ended.get("exitCode") != 0:
        return None, ""
    try:
        return read_profile(ended.get("message", "")), ""
    except (ValidationError, ValueError, binascii.Error, zlib.error):
        return None, (
            "the profile that the worker image wrote cannot be read: run operator and worker "
            "images of the same version"
        )


def _ended(pod: Object | None) -> dict[str, Any] | None:
    statuses = ((pod or {}).get("status") or {}).get("containerStatuses") or []
    states = (status.get("state", {}).get("terminated") for status in statuses)
    return next((state for state in states if state), None)
