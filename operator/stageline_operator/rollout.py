"""Which pipelines shall exist now: the step of a rollout, derived from what exists. Pure.

There is no memory: each step follows from the pipelines that are kept, how many of them are ready,
and how many more are still on their way out. The arithmetic is that of Kubernetes' Deployment
(kubernetes/pkg/controller/deployment/rolling.go and util/deployment_util.go), in its order:

1. Scale down what the current revision has too many of (`reconcileNewReplicaSet`).
2. Scale the current revision up, but never past replicas + maxSurge in all (`NewRSNewReplicas`).
   Unlike there, what is leaving counts as well: it holds its GPUs until it is gone.
3. Remove old pipelines, at most `kept - (replicas - maxUnavailable) - new that are not ready`, and
   those that are not ready first (`cleanupUnhealthyReplicas`). Once these are gone, what is left of
   that number is how many ready ones may go while replicas - maxUnavailable stay ready, so that it
   bounds both steps (`scaleDownOldReplicaSetsForRollingUpdate` counts it anew).

So a revision that never becomes ready costs the old one maxUnavailable pipelines, and no more.
Among equals, what serves least goes first: pipelines of a revision with fewer ready ones, then the
higher index. Indices are the lowest that are free, so that from nothing it becomes 0..replicas-1;
a ready pipeline is never moved only to have a lower number.

O(n log n) for n pipelines.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import count, islice
from typing import NamedTuple

from stageline_operator.observed import PipelineKey


class PipelineFact(NamedTuple):
    """One pipeline that is kept."""

    key: PipelineKey
    ready: bool
    """A canary went round its ring."""


def next_pipelines(
    kept: Sequence[PipelineFact],
    leaving: int,
    revision: str,
    replicas: int,
    max_surge: int,
    max_unavailable: int,
) -> tuple[PipelineKey, ...]:
    """The pipelines that shall exist now, the current revision's first, each by index.

    `leaving` is how many pipelines are not kept but not gone either.
    """
    current = [fact for fact in kept if fact.key.revision == revision]
    old = [fact for fact in kept if fact.key.revision != revision]
    current = _scaled_down(current, replicas)
    room = replicas + max_surge - len(current) - len(old) - leaving
    current += _new(current, revision, min(replicas - len(current), room))
    old = _old_that_stay(current, old, replicas - max_unavailable)
    return (*_sorted(current), *_sorted(old))


def _scaled_down(current: list[PipelineFact], replicas: int) -> list[PipelineFact]:
    return sorted(current, key=lambda fact: (not fact.ready, fact.key.index))[:replicas]


def _new(current: list[PipelineFact], revision: str, wanted: int) -> list[PipelineFact]:
    taken = {fact.key.index for fact in current}
    free = (index for index in count() if index not in taken)
    indices = islice(free, max(wanted, 0))
    return [PipelineFact(PipelineKey(revision, index), ready=False) for index in indices]


def _old_that_stay(
    current: list[PipelineFact], old: list[PipelineFact], least: int
) -> list[PipelineFact]:
    new_not_ready = sum(not fact.ready for fact in current)
    removable = len(current) + len(old) - least - new_not_ready
    serving = Counter(fact.key.revision for fact in old if fact.ready)
    return sorted(old, key=lambda fact: _worth(fact, serving))[max(removable, 0) :]


def _worth(fact: PipelineFact, serving: Counter[str]) -> tuple[bool, int, str, int]:
    revision, index = fact.key
    return fact.ready, serving[revision], revision, -index


def _sorted(facts: Iterable[PipelineFact]) -> list[PipelineKey]:
    return sorted(fact.key for fact in facts)
