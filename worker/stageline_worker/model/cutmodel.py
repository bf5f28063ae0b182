"""A model that was cut, and its own forward over the layers that are left."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from stageline_worker.model.architectures import Architecture
from stageline_worker.model.slicing import Channel

HIDDEN = "hidden_states"


class CutModel:
    """Layers [lo, hi) of `total`, with what `cut` left beside them."""

    def __init__(
        self,
        model: Any,
        channel: Channel,
        architecture: Architecture,
        layers: tuple[int, int],
        total: int,
    ) -> None:
        self.model = model
        self.architecture = architecture
        self.layers = layers
        self.first = layers[0] == 0
        self.last = layers[1] == total
        self.device: torch.device = next(model.parameters()).device
        self.dtype: torch.dtype = model.dtype
        self._channel = channel

    def run(
        self,
        entering: dict[str, Tensor],
        *,
        cache: Any = None,
        head: bool = True,
        use_cache: bool = False,
        **options: Any,
    ) -> Any:
        """Compute the model's own forward.

        `entering` are the model's inputs on stage 0, `hidden_states` on others; `options` go to
        the model as they are (attention_mask, position_ids, logits_to_keep). Gives the hidden
        states, on the last stage the model's output object; that of its base model without `head`.
        """
        inputs: dict[str, Any] = {**self._entrance(entering), **options}
        if self.architecture.generates:
            inputs.update(past_key_values=cache, use_cache=use_cache)
        self._channel.left = None
        entry = self.model if self.last and head else self.model.base_model
        output = entry(**inputs)
        return output if self.last else self._channel.left

    def _entrance(self, entering: dict[str, Tensor]) -> dict[str, Tensor]:
        if self.first:
            return entering
        self._channel.entered = entering[HIDDEN]
        # A copy of zeros, because a model may write to what it is given.
        zeros = torch.zeros_like(entering[HIDDEN])
        main = self.architecture.inputs[0]
        return {"inputs_embeds" if main == "input_ids" else main: zeros}
