"""One stage of a model: its layers, its KV cache, and what it gives to the next."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from stageline_worker.microbatch import Microbatch, ModelInfo, Segment
from stageline_worker.model.architectures import Architecture
from stageline_worker.model.cache import StageCache
from stageline_worker.model.errors import StageError
from stageline_worker.model.pooling import Pooling
from stageline_worker.model.sampling import draw
from stageline_worker.model.signature import EMBEDDING_OUTPUT
from stageline_worker.model.slicing import Channel

_HIDDEN = "hidden_states"
_MASK = "attention_mask"


class Stage:
    """Layers [lo, hi) of a model, loaded. Not thread-safe: one thread calls it.

    Of its own tensors, `parameters` counts the elements, `total_bytes` what they take on disk.
    """

    def __init__(
        self,
        model: Any,
        channel: Channel,
        architecture: Architecture,
        layers: tuple[int, int],
        *,
        info: ModelInfo,
        pooling: Pooling | None,
        max_sequences: int,
        total_bytes: int,
        parameters: int,
    ) -> None:
        self.layers = layers
        self.total_bytes = total_bytes
        self.parameters = parameters
        self._model = model
        self._channel = channel
        self._architecture = architecture
        self._info = info
        self._pooling = pooling
        self._max_sequences = max_sequences
        self._device = next(model.parameters()).device
        self._slots: dict[int, StageCache] = {}

    @property
    def info(self) -> ModelInfo:
        """The whole model as clients see it."""
        return self._info

    @property
    def first(self) -> bool:
        """Whether this stage holds the embedding."""
        return self.layers[0] == 0

    @property
    def last(self) -> bool:
        """Whether this stage holds the head."""
        return self.layers[1] == self._info.layers

    @property
    def device(self) -> str:
        """Where it computes: cpu, or cuda:N."""
        return str(self._device)

    @property
    def dtype(self) -> str:
        """What it computes in: float32, bfloat16 or float16."""
        return str(self._model.dtype).removeprefix("torch.")

    @property
    def kv_tokens(self) -> int:
        """Tokens whose keys and values it can hold, all slots together; 0: it generates nothing."""
        return self._max_sequences * self._info.max_model_len if self._info.generates else 0

    @property
    def packs(self) -> bool:
        """Whether segments share a microbatch's time; else each takes as long as it does alone."""
        return False

    def forward(self, microbatch: Microbatch) -> Microbatch:
        """Take the microbatch through this stage's layers; StageError when it does not fit."""
        with torch.inference_mode():
            if self.first:
                self._check_tokens(microbatch)
            compute = self._generate if microbatch.segments else self._infer
            tensors = compute(microbatch)
        return Microbatch(tensors, microbatch.segments, microbatch.outputs)

    def reset(self) -> None:
        """Forget every sequence."""
        self._slots.clear()

    def canary(self) -> Microbatch:
        """One token, or one black image, for stage 0."""
        spec = self._info.inputs[0]
        dtype = torch.float32 if spec.datatype == "FP32" else torch.int64
        shape = [1 if size == -1 else size for size in spec.shape]
        return Microbatch(
            {spec.name: torch.zeros(shape, dtype=dtype)}, outputs=(self._info.outputs[0].name,)
        )

    def warm_up(self) -> None:
        """Compute once, so that the first microbatch does not pay for what is made lazily."""
        if self.first:
            self.forward(self.canary())
        else:
            size = self._model.config.hidden_size
            self.forward(Microbatch({_HIDDEN: torch.zeros(1, 1, size, dtype=self._model.dtype)}))

    def new_cache(self) -> StageCache:
        """An empty cache for `run`."""
        return StageCache(self._model.config, *self.layers)

    def run(
        self, entering: dict[str, Tensor], *, cache: StageCache | None = None, **options: Any
    ) -> Any:
        """Compute the model's own forward over this stage.

        `entering` are the model's inputs on stage 0, `hidden_states` on others; `options` go to
        the model as they are (attention_mask, position_ids, logits_to_keep). Gives the hidden
        states, on the last stage the model's output object.
        """
        inputs: dict[str, Any] = {**self._entrance(entering), **options}
        if self._architecture.generates:
            inputs.update(past_key_values=cache, use_cache=cache is not None)
        self._channel.left = None
        entry = self._model if self.last else self._model.base_model
        output = entry(**inputs)
        if cache is not None:
            cache.advance(next(iter(entering.values())).shape[1])
        return output if self.last else self._channel.left

    def _entrance(self, entering: dict[str, Tensor]) -> dict[str, Tensor]:
        if self.first:
            return entering
        self._channel.entered = entering[_HIDDEN]
        # A copy of zeros, because a model may write to what it is given.
        zeros = torch.zeros_like(entering[_HIDDEN])
        main = self._architecture.inputs[0]
        return {"inputs_embeds" if main == "input_ids" else main: zeros}

    def _check_tokens(self, microbatch: Microbatch) -> None:
        """Refuse what no table has a row for: on a GPU it would end the process."""
        for spec in self._info.inputs:
            ids = microbatch.tensors.get(spec.name) if spec.limit else None
            if ids is not None and ids.numel() and not 0 <= ids.min() <= ids.max() < spec.limit:
                raise StageError(f"{spec.name} has a number outside of 0 to {spec.limit - 1}")
        longest, most = _longest(microbatch), self._info.max_model_len
        if self._info.vocab_size and longest > most:
            raise StageError(f"{longest} tokens are more than the {most} that the model takes")

    def _infer(self, microbatch: Microbatch) -> dict[str, Tensor]:
        tensors = {name: tensor.to(self._device) for name, tensor in microbatch.tensors.items()}
        mask = tensors.get(_MASK)
        options: dict[str, Any] = {} if mask is None else {_MASK: mask}
        names = self._architecture.inputs if self.first else (_HIDDEN,)
        entering = {name: tensors[name] for name in names if name in tensors and name != _MASK}
        output = self.run(entering, **options)
        if self.last:
            return self._outputs(output, mask, microbatch.outputs)
        return {_HIDDEN: output.contiguous(), **options}

    def _outputs(
        self, output: Any, mask: Tensor | None, wanted: tuple[str, ...] | None
    ) -> dict[str, Tensor]:
        names = [spec.name for spec in self._info.outputs]
        chosen = [name for name in names if wanted is None or name in wanted]
        return {name: self._output(name, output, mask) for name in chosen}

    def _output(self, name: str, output: Any, mask: Tensor | None) -> Tensor:
        if name == EMBEDDING_OUTPUT:
            assert self._pooling is not None
            return self._pooling(output.last_hidden_state, mask)
        tensor: Tensor = output[name]
        return tensor.contiguous()

    def _generate(self, microbatch: Microbatch) -> dict[str, Tensor]:
        if not self._info.generates:
            raise StageError(f"{self._info.architecture} does not generate text")
        entering = self._packed(microbatch)
        counts = [segment.count for segment in microbatch.segments]
        if sum(counts) != entering.shape[1]:
            raise StageError(f"{entering.shape[1]} tokens came for segments of {sum(counts)}")
        parts = torch.split(entering, counts, dim=1)
        results = [
            result
            for segment, part in zip(microbatch.segments, parts, strict=True)
            if (result := self._segment(segment, part)) is not None
        ]
        if not self.last:
            return {_HIDDEN: torch.cat(results, dim=1)}
        return {"tokens": torch.cat(results) if results else torch.empty(0, dtype=torch.int64)}

    def _packed(self, microbatch: Microbatch) -> Tensor:
        """[1, tokens] of ids on stage 0, [1, tokens, hidden] on others."""
        if self.first:
            return microbatch.tensors["input_ids"].to(self._device).unsqueeze(0)
        return microbatch.tensors[_HIDDEN].to(self._device)

    def _segment(self, segment: Segment, part: Tensor) -> Tensor | None:
        """Hidden states [1, count, hidden]; on the last stage the token [1], if one is wanted."""
        cache = self._slot(segment)
        positions = torch.arange(segment.start, segment.start + segment.count, device=self._device)
        entering = {"input_ids" if self.first else _HIDDEN: part}
        options: dict[str, Any] = {"position_ids": positions.unsqueeze(0)}
        if self.last:
            options["logits_to_keep"] = 1
        output = self.run(entering, cache=cache, **options)
        if not self.last:
            hidden: Tensor = output
            return hidden
        if segment.sampling is None:
            return None
        return draw(output.logits[:, -1], (segment.sampling,)).cpu()

    def _slot(self, segment: Segment) -> StageCache:
        if not 0 <= segment.slot < self._max_sequences:
            raise StageError(
                f"slot {segment.slot} was asked for, this stage has {self._max_sequences}"
            )
        if segment.start == 0:
            self._slots[segment.slot] = self.new_cache()
        cache = self._slots.get(segment.slot)
        held = 0 if cache is None else cache.tokens
        if cache is None or held != segment.start:
            raise StageError(
                f"slot {segment.slot} holds {held} tokens, its segment starts at {segment.start}"
            )
        return cache


def _longest(microbatch: Microbatch) -> int:
    """Tokens of the longest sequence, those in the cache counted."""
    if microbatch.segments:
        return max(segment.start + segment.count for segment in microbatch.segments)
    return max((tensor.shape[1] for tensor in microbatch.tensors.values()), default=0)
