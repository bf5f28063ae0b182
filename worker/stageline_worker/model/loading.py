"""Load the layers of one stage: read its own tensors, in file order, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import groupby
from typing import Any

import torch

from stageline_sources import PartCache
from stageline_worker.microbatch import ModelInfo
from stageline_worker.model.blueprint import Blueprint, build, draw
from stageline_worker.model.checkpoint import Checkpoint, StoredTensor
from stageline_worker.model.cutmodel import CutModel
from stageline_worker.model.errors import CheckpointError, StageError
from stageline_worker.model.gate import packs
from stageline_worker.model.generation import Generator, OneByOne, Packed
from stageline_worker.model.kernels import quicken
from stageline_worker.model.kv import KeyValues
from stageline_worker.model.linear import can_halve, hold
from stageline_worker.model.opening import OpenModel, opened
from stageline_worker.model.pooling import read_pooling
from stageline_worker.model.reader import DTYPES as STORED_DTYPES
from stageline_worker.model.reader import Progress, UnitReader
from stageline_worker.model.signature import embeds_text, model_info
from stageline_worker.model.slicing import cut
from stageline_worker.model.stage import Stage
from stageline_worker.model.weights import assign

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load(
    uri: str,
    layers: tuple[int, int],
    *,
    dtype: str = "auto",
    weight_dtype: str | None = None,
    device: str = "auto",
    max_model_len: int | None = None,
    max_sequences: int = 16,
    progress: Progress = lambda done, total: None,
    cache: PartCache | None = None,
) -> Stage:
    """Load layers [lo, hi) of the model at `uri`, with the embedding on the first stage and the
    head on the last.

    `dtype` is float32, bfloat16, float16, or auto for the checkpoint's own. `weight_dtype`
    float16 holds the matrices of linear layers in that, on a CPU that computes in float32; None is
    `dtype`. `device` is auto
    (cuda when there is one), cpu, cuda or cuda:N. `progress(done, total)` is called while reading,
    in bytes of the stage's own tensors, from several threads when they come over a network, one at
    a time. `cache` keeps what comes over a network. Raises ModelError with a sentence.
    """
    with opened(uri, cache) as found:
        return _load(
            found, layers, dtype, weight_dtype, device, max_model_len, max_sequences, progress
        )


def _load(
    found: OpenModel,
    layers: tuple[int, int],
    dtype: str,
    weight_dtype: str | None,
    device: str,
    max_model_len: int | None,
    max_sequences: int,
    progress: Progress,
) -> Stage:
    checkpoint = found.checkpoint
    blueprint = draw(checkpoint)
    lo, hi = _checked_range(layers, blueprint)
    name = stage_dtype(dtype, checkpoint)
    target = _device(device)
    half = _halved(weight_dtype, name, target)
    info = model_info(checkpoint, blueprint, name, max_model_len)
    own = blueprint.owned(checkpoint, lo, hi)
    model = build(blueprint.architecture, checkpoint.config, DTYPES[name], blueprint.left_out)
    model.all_tied_weights_keys = dict(blueprint.ties)
    channel = cut(model, blueprint.architecture, lo, hi)
    reader = found.reader(sum(tensor.size for tensor in own), progress)
    _fill(
        model,
        blueprint,
        own,
        DTYPES[name],
        target,
        reader,
        partial(hold, embeds=lo == 0, half=half),
    )
    quicken(model)
    cut_model = CutModel(model, channel, blueprint.architecture, (lo, hi), blueprint.layers)
    stage = Stage(
        cut_model,
        info=info,
        generator=_generator(cut_model, blueprint, info, max_sequences),
        pooling=read_pooling(checkpoint) if embeds_text(blueprint) else None,
        max_sequences=max_sequences,
        total_bytes=sum(tensor.size for tensor in own),
        parameters=sum(tensor.elements for tensor in own),
    )
    stage.warm_up()
    return stage


def _generator(
    cut_model: CutModel, blueprint: Blueprint, info: ModelInfo, max_sequences: int
) -> Generator | None:
    if not info.generates:
        return None
    if not packs(cut_model.model):
        return OneByOne(cut_model)
    own = {index: blueprint.caches[index] for index in range(*cut_model.layers)}
    device, dtype = cut_model.device, cut_model.dtype
    return Packed(cut_model, KeyValues(own, max_sequences, info.max_model_len, dtype, device))


def stage_dtype(asked: str, checkpoint: Checkpoint) -> str:
    """The dtype to compute in: the one asked for, for auto the checkpoint's own."""
    if asked == "auto":
        own = str(checkpoint.config.dtype or _stored_dtype(checkpoint)).removeprefix("torch.")
        return own if own in DTYPES else "float32"
    if asked not in DTYPES:
        raise StageError(f"dtype {asked} is unknown: choose auto, {', '.join(DTYPES)}")
    return asked


def _halved(asked: str | None, dtype: str, device: torch.device) -> bool:
    """Whether matrices are to be held in float16; StageError where they cannot be."""
    if asked is None:
        return False
    if asked != "float16":
        raise StageError(f"weight dtype {asked} is unknown: choose float16, or none")
    if dtype != "float32" or device.type != "cpu":
        raise StageError(
            f"weight dtype {asked} is for a CPU that computes in float32, this stage computes in "
            f"{dtype} on {device}: leave it out, or choose these"
        )
    if not can_halve():
        raise StageError(
            f"this processor has no kernels for weights in {asked}: leave weight dtype out"
        )
    return True


def _stored_dtype(checkpoint: Checkpoint) -> torch.dtype:
    stored = (STORED_DTYPES.get(tensor.dtype) for tensor in checkpoint.tensors.values())
    return next((dtype for dtype in stored if dtype and dtype.is_floating_point), torch.float32)


def _checked_range(layers: tuple[int, int], blueprint: Blueprint) -> tuple[int, int]:
    lo, hi = layers
    if not 0 <= lo < hi <= blueprint.layers:
        raise StageError(
            f"layers {lo} to {hi} were asked for, {blueprint.architecture.name} has "
            f"{blueprint.layers}: a stage needs at least one of them"
        )
    return lo, hi


def _device(asked: str) -> torch.device:
    if asked == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(asked)
    except RuntimeError:
        raise StageError(f"device {asked} is unknown: choose auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise StageError(f"device {asked} is not supported: choose auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise StageError(f"device {asked} is not there: {torch.cuda.device_count()} GPUs are")
    return device


def _fill(
    model: Any,
    blueprint: Blueprint,
    own: list[StoredTensor],
    dtype: torch.dtype,
    device: torch.device,
    reader: UnitReader,
    settle: Callable[[Any], None],
) -> None:
    """Read the tensors unit by unit, so that only one unit is held twice while it is converted,
    and while `settle` takes what is there into another form."""
    _compute_buffers(model, device)  # first: it reads modules that `settle` replaces
    missing = set(model.state_dict())
    units = groupby(own, key=lambda tensor: blueprint.units[tensor.name])
    try:
        for read in reader.units(list(tensors) for _, tensors in units):
            missing &= assign(model, read, dtype, device)
            del read  # or it would stay until the next is there
            settle(model)
    finally:
        reader.close()
    model.tie_weights(missing_keys=missing, recompute_mapping=False)
    if missing:
        raise CheckpointError(f"the checkpoint lacks {min(missing)}, which this stage needs")
    settle(model)  # what was tied


def _compute_buffers(model: Any, device: torch.device) -> None:
    """Rotary tables and other buffers that no checkpoint stores."""
    for name, buffer in model.named_non_persistent_buffers():
        owner, _, leaf = name.rpartition(".")
        model.get_submodule(owner).register_buffer(
            leaf, torch.empty_like(buffer, device=device), persistent=False
        )
    model.initialize_weights()
