"""Tensors of a checkpoint into a model's modules, by transformers' own rules.

Names change between checkpoints and modules: old names are renamed, experts stored one by one are
fused, a base model's prefix comes or goes. transformers knows how; here it is only asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from stageline_worker.model.errors import CheckpointError


def rename(model: Any, stored: Iterable[str]) -> dict[str, str]:
    """The model's name for each stored tensor that it uses; fused experts share one."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import (
        WeightConverter,
        WeightRenaming,
        dot_natural_key,
        rename_source_key,
    )

    expected = model.state_dict()
    mapping = get_model_conversion_mapping(model)
    renamings = [entry for entry in mapping if isinstance(entry, WeightRenaming)]
    converters = [entry for entry in mapping if isinstance(entry, WeightConverter)]
    prefix = model.base_model_prefix
    names: dict[str, str] = {}
    for key in sorted(stored, key=dot_natural_key):
        name, _ = rename_source_key(key, renamings, converters, prefix, expected)
        if name not in expected and key in expected:
            name, _ = rename_source_key(key, [], [], prefix, expected)
        if name in expected:
            names[key] = name
    return names


def assign(
    model: Any, tensors: dict[str, Tensor], dtype: torch.dtype, device: torch.device
) -> set[str]:
    """Give `tensors`, by their stored names, to `model` in its dtype and on `device`.

    Returns the model's names that are still without a tensor. Raises CheckpointError for a
    tensor whose shape is not the one that the model needs.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import convert_and_load_state_dict_in_model
    from transformers.modeling_utils import LoadStateDictConfig

    mapping: Any = get_model_conversion_mapping(model)
    config = LoadStateDictConfig(
        device_map={"": device},
        dtype=dtype,
        dtype_plan=model._get_dtype_plan(dtype),  # what must stay float32, no public name yet
        weight_mapping=mapping,
        ignore_mismatched_sizes=True,
    )
    with _no_progress_bar():
        found, _ = convert_and_load_state_dict_in_model(model, tensors, config)
    for name, stored, needed in sorted(found.mismatched_keys):
        raise CheckpointError(
            f"{name} is {list(stored)} in the checkpoint, config.json asks for {list(needed)}"
        )
    for name, error in sorted(found.conversion_errors.items()):
        reason = error.strip().splitlines()[-1]
        raise CheckpointError(f"the tensors that make {name} do not fit together: {reason}")
    return set(found.missing_keys)


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
