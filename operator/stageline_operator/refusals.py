"""Why the API server will not have a child, and what mends it, by the words of its sentence. Pure.

Quotas, limits and policies are all answered alike (403, reason Forbidden): the sentence alone tells
them apart. The words are those of Kubernetes 1.29 to 1.34.
"""

from __future__ import annotations

from typing import Final

from stageline_operator.messages import joined
from stageline_operator.reasons import Reason

_KNOWN: Final = (
    (
        "because it is being terminated", Reason.NAMESPACE_TERMINATING,
        "it ends with its namespace; make it anew in another, or in this one once that is back",
    ),
    (
        "exceeded quota", Reason.QUOTA_EXCEEDED,
        "raise the quota, or lower spec.replicas or spec.resources",
    ),
    (
        "failed quota", Reason.QUOTA_EXCEEDED,
        "the quota counts what the pod does not name: set it in spec.resources and spec.router",
    ),
    (
        "violates PodSecurity", Reason.CHILD_REFUSED,
        "take out of the podTemplate what the namespace's level forbids, or lower the level",
    ),
    (
        "usage per ", Reason.CHILD_REFUSED,
        "bring spec.resources within the namespace's LimitRange, or change that",
    ),
    (
        "no PriorityClass with name", Reason.CHILD_REFUSED,
        "make that PriorityClass, or name another in the podTemplate",
    ),
    (
        "failed calling webhook", Reason.CHILD_REFUSED,
        "that admission webhook does not answer: mend it, or take its configuration away",
    ),
    (
        "admission webhook", Reason.CHILD_REFUSED,
        "do as that webhook says, or ask whoever runs it",
    ),
)  # fmt: skip
"""Words, reason, advice; the first that is found counts."""


def refusal(sentence: str) -> tuple[Reason, str]:
    """The reason for the API server's `sentence`, and the sentence with what to do about it."""
    for words, reason, advice in _KNOWN:
        if words in sentence:
            return reason, joined(sentence, advice)
    return Reason.CHILD_REFUSED, sentence
