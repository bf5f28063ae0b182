"""The model of a worker: profile a checkpoint, load some of its layers, compute with them."""

from stageline_worker.model.errors import (
    CheckpointError,
    ModelError,
    StageError,
    UnsupportedModelError,
)
from stageline_worker.model.loading import load
from stageline_worker.model.profile import profile
from stageline_worker.model.stage import Stage

__all__ = [
    "CheckpointError",
    "ModelError",
    "Stage",
    "StageError",
    "UnsupportedModelError",
    "load",
    "profile",
]
