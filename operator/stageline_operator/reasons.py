"""Every reason that a condition or an Event may have, and what it means: the one table of them."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Reason(StrEnum):
    """In order: what keeps a resource from serving, the worst first; what it is waiting for;
    and how it is when all is well."""

    INVALID_SPEC = "InvalidSpec"
    MODEL_SOURCE_REFUSED = "ModelSourceRefused"
    PROFILE_FAILED = "ProfileFailed"
    PROFILE_UNREADABLE = "ProfileUnreadable"
    PLAN_REFUSED = "PlanRefused"
    MODEL_CHANGED = "ModelChanged"
    NOT_IN_THIS_VERSION = "NotInThisVersion"
    POD_TEMPLATE_REFUSED = "PodTemplateRefused"
    NAME_TAKEN = "NameTaken"
    NAMESPACE_TERMINATING = "NamespaceTerminating"
    QUOTA_EXCEEDED = "QuotaExceeded"
    CHILD_REFUSED = "ChildRefused"
    RESTART_BUDGET_SPENT = "RestartBudgetSpent"
    STAGE_UNSCHEDULABLE = "StageUnschedulable"
    STAGE_VOLUME = "StageVolume"
    STAGE_IMAGE_PULL = "StageImagePull"
    STAGE_CONFIG = "StageConfig"
    STAGE_OUT_OF_MEMORY = "StageOutOfMemory"
    STAGE_CRASHED = "StageCrashed"
    STAGE_EVICTED = "StageEvicted"
    STAGE_NODE_LOST = "StageNodeLost"
    STAGE_FAILED = "StageFailed"
    RING_BROKEN = "RingBroken"
    ROUTER_FAILED = "RouterFailed"
    PROGRESS_DEADLINE_EXCEEDED = "ProgressDeadlineExceeded"

    PROFILING = "Profiling"
    ROUTER_STARTING = "RouterStarting"
    STAGE_LEAVING = "StageLeaving"
    STAGE_STARTING = "StageStarting"
    STAGE_LOADING = "StageLoading"
    PIPELINE_SILENT = "PipelineSilent"
    PIPELINE_CONNECTING = "PipelineConnecting"
    WAITING_FOR_ROOM = "WaitingForRoom"
    SCHEDULING = "Scheduling"
    STAGES_NOT_LOADED = "StagesNotLoaded"

    ACCEPTED = "Accepted"
    NOT_PLANNED = "NotPlanned"
    ROLLOUT_BLOCKED = "RolloutBlocked"
    SECOND_OPERATOR = "SecondOperator"
    ROLLING_OUT = "RollingOut"
    SCALING = "Scaling"
    HEALING = "Healing"
    STARTING = "Starting"
    SCALED_TO_ZERO = "ScaledToZero"
    PLANNED = "Planned"
    PLANNED_WITHOUT_MEMORY = "PlannedWithoutMemory"
    PLANNED_WITH_OLD_CRD = "PlannedWithOldCRD"
    SCHEDULED = "Scheduled"
    LOADED = "Loaded"
    LOADED_WITH_COMPLAINT = "LoadedWithComplaint"
    CONNECTED = "Connected"
    LINK_FELL_BACK = "LinkFellBack"
    AVAILABLE = "Available"
    SERVING = "Serving"
    SETTLED = "Settled"
    PROGRESSING = "Progressing"

    @property
    def meaning(self) -> str:
        """What it says of the resource, in one line."""
        return _MEANINGS[self]

    @property
    def rank(self) -> int:
        """Lower is worse."""
        return _RANKS[self]

    @property
    def hard(self) -> bool:
        """Something is wrong, as opposed to not done yet."""
        return self.rank < Reason.PROFILING.rank


_RANKS: Final = {reason: rank for rank, reason in enumerate(Reason)}
_MEANINGS: Final = {
    Reason.INVALID_SPEC: "The spec contradicts itself in a way that the API server let through.",
    Reason.MODEL_SOURCE_REFUSED: "The model is where this operator may not take it from.",
    Reason.PROFILE_FAILED: "The pod that reads the model's sizes does not get to them.",
    Reason.PROFILE_UNREADABLE: "Operator and worker image do not understand each other.",
    Reason.PLAN_REFUSED: "The model cannot be cut as the spec asks, or does not fit.",
    Reason.MODEL_CHANGED: "The new model answers other requests than the one that is served.",
    Reason.NOT_IN_THIS_VERSION: "The spec asks for what this version cannot do.",
    Reason.POD_TEMPLATE_REFUSED: "A podTemplate is no valid patch, or changes what it may not.",
    Reason.NAMESPACE_TERMINATING: "The namespace is being deleted: no child can be made in it.",
    Reason.NAME_TAKEN: "A child cannot be made: an object of somebody else has its name.",
    Reason.QUOTA_EXCEEDED: "The namespace's quota does not allow another child.",
    Reason.CHILD_REFUSED: "The API server or an admission webhook refused a child.",
    Reason.RESTART_BUDGET_SPENT: "A stage was replaced again and again and is not well.",
    Reason.STAGE_UNSCHEDULABLE: "No node fits the pod of a stage.",
    Reason.STAGE_VOLUME: "A volume of a stage is missing, or no node can have it.",
    Reason.STAGE_IMAGE_PULL: "The image of a stage cannot be pulled.",
    Reason.STAGE_CONFIG: "The container of a stage cannot be made: a Secret or volume is missing.",
    Reason.STAGE_OUT_OF_MEMORY: "A stage used more memory than its limit.",
    Reason.STAGE_CRASHED: "A stage ends with an error, again and again.",
    Reason.STAGE_EVICTED: "The pod of a stage was evicted from its node.",
    Reason.STAGE_NODE_LOST: "The node of a stage does not answer.",
    Reason.STAGE_FAILED: "A stage failed otherwise.",
    Reason.RING_BROKEN: "All stages are loaded, but their ring does not hold.",
    Reason.PIPELINE_SILENT: "All stages are loaded, but the leader is not heard.",
    Reason.ROUTER_FAILED: "A router pod cannot start.",
    Reason.PROGRESS_DEADLINE_EXCEEDED: "Nothing came further for rollout.progressDeadline.",
    Reason.PROFILING: "The model's sizes are being read.",
    Reason.ROUTER_STARTING: "No router answers yet.",
    Reason.STAGE_LEAVING: "The pod of a stage is on its way out, and will be made anew.",
    Reason.STAGE_STARTING: "The pod of a stage is being made or started.",
    Reason.STAGE_LOADING: "A stage is loading its weights.",
    Reason.PIPELINE_CONNECTING: "All stages are loaded, and their ring is being closed.",
    Reason.WAITING_FOR_ROOM: "Pipelines are to be made once others have made way.",
    Reason.SCHEDULING: "Pods of stages have no node yet.",
    Reason.STAGES_NOT_LOADED: "A ring is closed only once all its stages are loaded.",
    Reason.ACCEPTED: "The resource was seen, and is looked into.",
    Reason.NOT_PLANNED: "There is no plan yet from which it would follow.",
    Reason.ROLLOUT_BLOCKED: "The old revision serves; the new one cannot take over.",
    Reason.SECOND_OPERATOR: "Two operators want to serve the namespace, and one of them waits.",
    Reason.ROLLING_OUT: "Pipelines of the new revision take over from old ones.",
    Reason.SCALING: "Pipelines are being added or removed.",
    Reason.HEALING: "Something failed and is being mended.",
    Reason.STARTING: "Pipelines or routers are on their way to serve.",
    Reason.SCALED_TO_ZERO: "spec.replicas is 0.",
    Reason.PLANNED: "The model is cut, and every stage fits.",
    Reason.PLANNED_WITHOUT_MEMORY: "The model is cut; whether it fits could not be checked.",
    Reason.PLANNED_WITH_OLD_CRD: "The model is cut, but the cluster's CRD drops newer fields.",
    Reason.SCHEDULED: "Every stage has a node.",
    Reason.LOADED: "Every stage has its weights in memory.",
    Reason.LOADED_WITH_COMPLAINT: "Every stage has its weights, but one says what is amiss.",
    Reason.CONNECTED: "A canary microbatch went round every ring.",
    Reason.LINK_FELL_BACK: "The link of a stage uses a slower transport than it would.",
    Reason.AVAILABLE: "A router answers.",
    Reason.SERVING: "As many pipelines as asked for serve, and a router leads to them.",
    Reason.SETTLED: "Everything is as the spec asks.",
    Reason.PROGRESSING: "It goes forward, or there is nothing to do.",
}
