"""The conditions: Ready, whether it comes further, and what Ready is made of. Pure.

Ready asks one question: do as many pipelines as asked for serve, and does a router lead to them?
Pipelines of any revision count, as they do in a Deployment's Available, so that Ready stays True
while a rollout replaces them one by one, and an alert on it means an outage. Whether the resource
is as its spec asks is the question of kstatus (Flux, Helm --wait), and it reads two others first:
Reconciling is True until nothing of an old revision or shape is left, Stalled is True when only
somebody's help or luck brings it further. Never both: kstatus takes the first that it finds.
`kubectl wait --for=condition=Reconciling=False` waits for a rollout.

Ready is Unknown only while there is nothing to tell: no plan, no pipeline, nothing wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, NamedTuple

from stageline_api.status import Condition
from stageline_operator.dropped import sentence
from stageline_operator.messages import clean, joined
from stageline_operator.planning import Planning
from stageline_operator.problems import Problem
from stageline_operator.reasons import Reason
from stageline_operator.situation import Situation, Stage
from stageline_operator.times import rfc3339

Truth = Literal["True", "False", "Unknown"]

NEEDS_HELP: Final = frozenset(
    {
        Reason.INVALID_SPEC, Reason.MODEL_SOURCE_REFUSED, Reason.PROFILE_UNREADABLE,
        Reason.PLAN_REFUSED, Reason.MODEL_CHANGED, Reason.NOT_IN_THIS_VERSION,
        Reason.POD_TEMPLATE_REFUSED, Reason.NAME_TAKEN, Reason.RESTART_BUDGET_SPENT,
    }
)  # fmt: skip
"""What does not pass by waiting."""
_BAD: Final = frozenset(
    reason.value
    for reason in Reason
    if reason.hard or reason in (Reason.ROLLOUT_BLOCKED, Reason.SECOND_OPERATOR)
)
OPERATOR_CONFLICT: Final = "OperatorConflict"
"""A condition that is there only while it is so."""
_OF_STAGES: Final = frozenset(
    {
        Reason.STAGE_UNSCHEDULABLE, Reason.STAGE_VOLUME, Reason.STAGE_IMAGE_PULL,
        Reason.STAGE_CONFIG, Reason.STAGE_OUT_OF_MEMORY, Reason.STAGE_CRASHED, Reason.STAGE_EVICTED,
        Reason.STAGE_NODE_LOST, Reason.STAGE_FAILED, Reason.STAGE_LEAVING,
        Reason.STAGE_STARTING, Reason.STAGE_LOADING,
    }
)  # fmt: skip
_OF_SCHEDULING: Final = frozenset(
    {
        Reason.NAMESPACE_TERMINATING, Reason.NAME_TAKEN, Reason.QUOTA_EXCEEDED,
        Reason.CHILD_REFUSED, Reason.STAGE_UNSCHEDULABLE, Reason.STAGE_VOLUME,
    }
)  # fmt: skip
_OF_RINGS: Final = frozenset(
    {Reason.RING_BROKEN, Reason.PIPELINE_SILENT, Reason.PIPELINE_CONNECTING}
)
_OF_ROUTERS: Final = frozenset({Reason.ROUTER_FAILED, Reason.ROUTER_STARTING})


class Verdict(NamedTuple):
    """A condition without its times."""

    type: str
    status: Truth
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Case:
    """All that the conditions follow from."""

    situation: Situation
    planning: Planning
    problems: tuple[Problem, ...]
    """The worst first."""
    overdue: str = ""
    """rollout.progressDeadline, where it has passed without progress."""

    @property
    def revision(self) -> str:
        """The one that the spec asks for; empty while there is no plan."""
        return self.planning.record.revision if self.planning.record is not None else ""

    @property
    def updated(self) -> int:
        """Pipelines of the current revision that are kept."""
        return sum(key.revision == self.revision for key in self.situation.kept)

    @property
    def ready(self) -> int:
        """Pipelines that are kept and serve, of any revision."""
        return sum(pipeline.ready for pipeline in self.situation.kept_pipelines)

    @property
    def rolling(self) -> bool:
        """Pipelines of another revision are there beside the current one, or in its place."""
        pipelines = self.situation.pipelines
        return any(pipeline.key.revision != self.revision for pipeline in pipelines)

    @property
    def settled(self) -> bool:
        """All is as the spec asks, and nothing older is left."""
        wanted = self.situation.wanted
        return (
            bool(self.revision)
            and not self.rolling
            and not self.situation.leaving
            and self.updated == self.ready == wanted
            and self.situation.router.settled
            and not any(problem.reason.hard for problem in self.problems)
        )

    def worst(self, among: Iterable[Reason] | None = None) -> Problem | None:
        """The worst problem, or the worst of some kinds."""
        kinds = None if among is None else frozenset(among)
        return next((one for one in self.problems if kinds is None or one.reason in kinds), None)


def conditions(
    case: Case, previous: Mapping[str, Condition], now: datetime
) -> tuple[Condition, ...]:
    """Every condition, each with the time of its last change of status.

    Always all of them, but for OperatorConflict.
    """
    stalled = _stalled(case)
    verdicts = (
        _ready(case, stalled),
        _reconciling(case, stalled),
        stalled,
        _planned(case),
        _stages_scheduled(case),
        _model_loaded(case),
        _pipeline_connected(case),
        _router_ready(case),
        *_operator_conflict(case),
    )
    generation = case.situation.generation
    return tuple(_timed(one, previous.get(one.type), generation, now) for one in verdicts)


def is_bad(condition: Condition) -> bool:
    """Something is wrong, as opposed to not done yet."""
    return condition.reason in _BAD


def _timed(verdict: Verdict, before: Condition | None, generation: int, now: datetime) -> Condition:
    same = before is not None and before.status == verdict.status
    return Condition(
        type=verdict.type,
        status=verdict.status,
        reason=verdict.reason.value,
        message=clean(verdict.message),
        last_transition_time=before.last_transition_time if before and same else rfc3339(now),
        observed_generation=generation,
    )


def _ready(case: Case, stalled: Verdict) -> Verdict:
    wanted, router = case.situation.wanted, case.situation.router
    worst = case.worst()
    if 0 < wanted <= case.ready and router.available > 0:
        return _serving(case, stalled)
    if not case.revision and not case.situation.kept and not (worst and worst.reason.hard):
        words = "accepted: its model is profiled and planned before any of its pods is made"
        return Verdict("Ready", "Unknown", Reason.ACCEPTED, words)
    if wanted == 0 and not (worst and worst.reason in NEEDS_HELP):
        words = "spec.replicas is 0: raise it to be served"
        return Verdict("Ready", "False", Reason.SCALED_TO_ZERO, words)
    if worst is None:
        words = f"{case.ready} of {wanted} pipelines are ready"
        return Verdict("Ready", "False", Reason.STARTING, words)
    return Verdict("Ready", "False", worst.reason, _and_more(case.problems))


def _serving(case: Case, stalled: Verdict) -> Verdict:
    wanted, router = case.situation.wanted, case.situation.router
    words = f"{case.ready} of {wanted} pipelines and {router.available} of {router.wanted} routers "
    words += "serve"
    hard = next((problem for problem in case.problems if problem.reason.hard), None)
    blocked = stalled.status == "True" or hard is not None
    if not case.rolling and (case.revision or not blocked):
        return Verdict("Ready", "True", Reason.SERVING, words)
    if not blocked:
        words += f", {case.updated} of the new revision {case.revision}"
        return Verdict("Ready", "True", Reason.ROLLING_OUT, words)
    why = stalled.message if stalled.status == "True" else _and_more(case.problems)
    return Verdict("Ready", "True", Reason.ROLLOUT_BLOCKED, f"{words} the old revision; {why}")


def _and_more(problems: tuple[Problem, ...]) -> str:
    first, *others = problems
    return f"{first.message} (and {len(others)} more)" if others else first.message


def _stalled(case: Case) -> Verdict:
    helpless = case.worst(NEEDS_HELP)
    if helpless is not None:
        return Verdict("Stalled", "True", helpless.reason, helpless.message)
    if case.overdue and not case.settled:
        why = _and_more(case.problems) if case.problems else "nothing came further"
        words = f"no progress for {case.overdue} (spec.rollout.progressDeadline): {why}"
        return Verdict("Stalled", "True", Reason.PROGRESS_DEADLINE_EXCEEDED, words)
    return Verdict("Stalled", "False", Reason.PROGRESSING, Reason.PROGRESSING.meaning)


def _reconciling(case: Case, stalled: Verdict) -> Verdict:
    if stalled.status == "True":
        words = f"it does not come further: {stalled.message}"
        return Verdict("Reconciling", "False", stalled.reason, words)
    if case.settled:
        return Verdict("Reconciling", "False", Reason.SETTLED, Reason.SETTLED.meaning)
    reason = _activity(case)
    return Verdict("Reconciling", "True", reason, reason.meaning)


def _activity(case: Case) -> Reason:
    if not case.revision:
        return Reason.PROFILING
    if case.rolling:
        return Reason.ROLLING_OUT
    if case.situation.leaving or case.updated != case.situation.wanted:
        return Reason.SCALING
    if case.problems and case.problems[0].reason.hard:
        return Reason.HEALING
    return Reason.STARTING


def _planned(case: Case) -> Verdict:
    plan, dropped = _plan(case), case.situation.observed.dropped
    if not dropped:
        return plan
    reason = Reason.PLANNED_WITH_OLD_CRD if plan.status == "True" else plan.reason
    return Verdict(plan.type, plan.status, reason, f"{plan.message}; {sentence(dropped)}")


def _plan(case: Case) -> Verdict:
    record = case.planning.record
    if record is None:
        worst = case.worst()
        if worst is not None and worst.reason.rank < Reason.NAME_TAKEN.rank:
            return Verdict("Planned", "False", worst.reason, worst.message)
        words = worst.message if worst is not None else Reason.PROFILING.meaning
        return Verdict("Planned", "Unknown", Reason.PROFILING, words)
    plan = record.plan
    words = f"{sum(plan.partition)} layers on {len(plan.partition)} stages"
    if plan.memory_checked:
        words += ", and every stage fits" + (f"; {record.devices}" if record.devices else "")
        return Verdict("Planned", "True", Reason.PLANNED, words)
    unknown = next(stage.stage for stage in plan.stages if stage.offers_bytes is None)
    words += f", not checked for memory, as that of stage {unknown} is not known"
    words += f" ({record.devices})" if record.devices else ""
    words += ": set spec.resources.deviceMemory"
    return Verdict("Planned", "True", Reason.PLANNED_WITHOUT_MEMORY, words)


def _none_to_tell_of(case: Case, kind: str) -> Verdict | None:
    """What is said of stages and rings while there are none."""
    if case.situation.kept:
        return None
    if case.revision and case.situation.wanted == 0:
        return Verdict(kind, "False", Reason.SCALED_TO_ZERO, Reason.SCALED_TO_ZERO.meaning)
    return Verdict(kind, "Unknown", Reason.NOT_PLANNED, Reason.NOT_PLANNED.meaning)


def _part(
    kind: str, well: bool, good: Reason, waiting: Reason, words: str, worst: Problem | None
) -> Verdict:
    """A part of Ready: as it should be, or for which problem not, or merely not yet."""
    if well:
        return Verdict(kind, "True", good, words)
    if worst is None:
        return Verdict(kind, "False", waiting, words)
    return Verdict(kind, "False", worst.reason, f"{words}; {worst.message}")


def _stages_scheduled(case: Case) -> Verdict:
    kind = "StagesScheduled"
    stages = list(case.situation.kept_stages)
    placed = sum(stage.truth is not None and bool(stage.truth.node) for stage in stages)
    words = f"{placed} of {len(stages)} stages have a node"
    well, worst = placed == len(stages), case.worst(_OF_SCHEDULING)
    part = _part(kind, well, Reason.SCHEDULED, Reason.SCHEDULING, words, worst)
    return _none_to_tell_of(case, kind) or part


def _model_loaded(case: Case) -> Verdict:
    kind = "ModelLoaded"
    stages = list(case.situation.kept_stages)
    loaded = sum(stage.loaded for stage in stages)
    words = f"{loaded} of {len(stages)} stages have their weights in memory"
    well, worst = loaded == len(stages), case.worst(_OF_STAGES)
    good, complaint = Reason.LOADED, _complaint(stages) if well else ""
    if complaint:
        good, words = Reason.LOADED_WITH_COMPLAINT, f"{words}; {complaint}"
    part = _part(kind, well, good, Reason.STAGE_STARTING, words, worst)
    return _none_to_tell_of(case, kind) or part


def _complaint(stages: Iterable[Stage]) -> str:
    """Of the first stage that works but says that something is amiss."""
    said = (joined(one.place, one.heard.error) for one in stages if one.heard and one.heard.error)
    return next(said, "")


def _pipeline_connected(case: Case) -> Verdict:
    kind, total = "PipelineConnected", len(case.situation.kept)
    words = f"a canary microbatch went round {case.ready} of {total} rings"
    well, worst = case.ready == total, case.worst(_OF_RINGS)
    part = _part(kind, well, Reason.CONNECTED, Reason.STAGES_NOT_LOADED, words, worst)
    return _none_to_tell_of(case, kind) or part


def _router_ready(case: Case) -> Verdict:
    kind, router = "RouterReady", case.situation.router
    if not router.exists and not case.revision:
        return Verdict(kind, "Unknown", Reason.NOT_PLANNED, Reason.NOT_PLANNED.meaning)
    words = f"{router.available} of {router.wanted} routers answer"
    well, worst = router.available > 0, case.worst(_OF_ROUTERS)
    return _part(kind, well, Reason.AVAILABLE, Reason.ROUTER_STARTING, words, worst)


def _operator_conflict(case: Case) -> Iterator[Verdict]:
    if words := case.situation.observed.conflict:
        yield Verdict(OPERATOR_CONFLICT, "True", Reason.SECOND_OPERATOR, words)
