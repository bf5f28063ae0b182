"""A model's pieces and a request's devices, brought together: who can hold what."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

from stageline_api.partition import Place, deal, fewest_stages
from stageline_api.plan_request import PlanRequest
from stageline_api.sizing import Load, ModelLoad
from stageline_api.spec import MAX_STAGES

Partition = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Dealing:
    """Deals the layers of `load` to the devices of `request`."""

    load: ModelLoad
    request: PlanRequest

    def deal(self, stages: int) -> Partition | None:
        """The best partition on so many stages; None when none fits in memory."""
        places = [self._place(stage, stages) for stage in range(stages)]
        return deal(self._work(), self._memory(), places)

    def deal_by_time(self, stages: int) -> Partition:
        """The best partition on so many stages if memory were no matter."""
        sides = (self.load.beside_layers(stage, stages) for stage in range(stages))
        places = [
            Place(work=side.picoseconds, speed=self.request.device_of(stage).speed_percent)
            for stage, side in enumerate(sides)
        ]
        return _found(deal(self._work(), self._memory(), places))

    def deal_by_memory(self, stages: int) -> Partition:
        """The partition on so many stages whose fullest stage is the least full."""
        sides = (self.load.beside_layers(stage, stages) for stage in range(stages))
        places = [Place(work=side.needs_bytes) for side in sides]
        return _found(deal(self._memory(), self._memory(), places))

    def fewest_stages(self, least: int) -> int | None:
        """The smallest number of stages from `least` on that fits in memory."""
        return fewest_stages(self._memory(), self._place, least, MAX_STAGES)

    def fits(self, stages: int) -> bool:
        """Whether some partition on exactly so many stages fits in memory."""
        return fewest_stages(self._memory(), self._place, stages, stages) is not None

    def loads(self, partition: Partition) -> list[Load]:
        """What each stage of `partition` holds."""
        stages, loads = len(partition), []
        for stage, (size, end) in enumerate(zip(partition, accumulate(partition), strict=True)):
            own = self.load.layers[end - size : end]
            loads.append(sum(own, start=self.load.beside_layers(stage, stages)))
        return loads

    def overfull(self, partition: Partition) -> int | None:
        """The stage of `partition` that lacks most memory; None when every stage fits."""
        lacks = []
        for stage, load in enumerate(self.loads(partition)):
            offers = self.request.device_of(stage).memory_bytes
            if offers is not None and load.needs_bytes > offers:
                lacks.append((load.needs_bytes - offers, -stage))
        return -max(lacks)[1] if lacks else None

    def _place(self, stage: int, stages: int) -> Place:
        side = self.load.beside_layers(stage, stages)
        device = self.request.device_of(stage)
        return Place(side.picoseconds, side.needs_bytes, device.speed_percent, device.memory_bytes)

    def _work(self) -> list[int]:
        return [layer.picoseconds for layer in self.load.layers]

    def _memory(self) -> list[int]:
        return [layer.needs_bytes for layer in self.load.layers]


def _found(partition: Partition | None) -> Partition:
    assert partition is not None, "without a cap on memory every model fits"
    return partition
