"""Why a plan cannot be, and what could: the sentences of a PlanError."""

from __future__ import annotations

from dataclasses import dataclass, replace

from stageline_api.dealing import Dealing, Partition
from stageline_api.plan_request import PlanRequest
from stageline_api.profile import ModelProfile
from stageline_api.quantity import format_bytes, format_bytes_up
from stageline_api.sizing import Settings, model_load
from stageline_api.spec import MAX_STAGES

LEAST_USEFUL_LENGTH = 128  # tokens; nobody is helped by the advice to go lower


def too_many_stages(name: str, layers: int, stages: int) -> str:
    """More stages than there are layers."""
    return (
        f"{name} has {_counted(layers)}, too few for {stages} stages: "
        f"lower spec.pipeline.stages to {layers} or less"
    )


def no_such_stage(stage: int, stages: int) -> str:
    """An override of a stage that the pipeline does not have, or cannot have."""
    return (
        f"spec.stageOverrides names stage {stage} but the pipeline has at most {stages} stages: "
        f"the last one is stage {stages - 1}"
    )


def wrong_sum(name: str, layers: int, partition: Partition) -> str:
    """A partition that covers another number of layers."""
    return (
        f"partition {list(partition)} covers {sum(partition)} layers but {name} has {layers}: "
        f"make its numbers add up to {layers}"
    )


def empty_stage(name: str, partition: Partition) -> str:
    """A partition with a stage that has no layers."""
    return f"partition {list(partition)} of {name} has a stage without layers: give each at least 1"


def _counted(layers: int) -> str:
    return "1 layer" if layers == 1 else f"{layers} layers"


@dataclass(frozen=True, slots=True)
class MemoryRefusal:
    """Says what would fit, for a request that does not."""

    profile: ModelProfile
    settings: Settings
    request: PlanRequest

    def partition(self, partition: Partition) -> str:
        """A partition that was asked for does not fit."""
        planned = self._dealing().deal(len(partition))
        if planned is not None:
            advice = f"leave spec.pipeline.partition out, {list(planned)} fits"
        else:
            advice = f"leave spec.pipeline.partition out and {self._advice(len(partition))}"
        return f"{self._lack(partition)}: {advice}"

    def stages(self, stages: int) -> str:
        """No partition on the number of stages that was asked for fits."""
        return f"{self._lack(self._dealing().deal_by_time(stages))}: {self._advice(stages)}"

    def any_stages(self) -> str:
        """No number of stages fits."""
        stages = min(self.profile.layers, MAX_STAGES)
        lack = self._lack(self._dealing().deal_by_memory(stages))
        return f"{lack}, even with {stages} stages: {self._advice(stages)}"

    def _dealing(self, max_model_len: int | None = None) -> Dealing:
        length = self.settings.max_model_len if max_model_len is None else max_model_len
        settings = replace(self.settings, max_model_len=length)
        return Dealing(model_load(self.profile, settings), self.request)

    def _lack(self, partition: Partition) -> str:
        dealing = self._dealing()
        stage = dealing.overfull(partition)
        assert stage is not None, "a partition without an overfull stage fits"
        needs = dealing.loads(partition)[stage].needs_bytes
        offers = self.request.device_of(stage).memory_bytes or 0
        return (
            f"stage {stage} of {self.request.name} needs {format_bytes_up(needs)} "
            f"but its pods offer {format_bytes(offers)}"
        )

    def _advice(self, stages: int) -> str:
        ways = []
        if more := self._dealing().fewest_stages(least=stages + 1):
            ways.append(f"raise spec.pipeline.stages to {more}")
        if length := self._longest(stages):
            ways.append(f"lower spec.model.maxModelLen to {length}")
        return " or ".join(ways) or f"give each at least {format_bytes_up(self._least(stages))}"

    def _longest(self, stages: int) -> int | None:
        """The largest length that fits on so many stages, where a shorter one can help at all."""
        low, high = LEAST_USEFUL_LENGTH, self.settings.max_model_len
        if low >= high or not self._dealing(low).fits(stages):
            return None
        while high - low > 1:
            middle = (low + high) // 2
            fits = self._dealing(middle).fits(stages)
            low, high = (middle, high) if fits else (low, middle)
        return low

    def _least(self, stages: int) -> int:
        """Memory that would do, if every stage had as much."""
        dealing = self._dealing()
        return max(load.needs_bytes for load in dealing.loads(dealing.deal_by_memory(stages)))
