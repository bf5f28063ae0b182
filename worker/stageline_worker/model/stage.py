"""One stage of a model: its layers, its KV cache, and what it gives to the next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from stageline_worker.microbatch import Microbatch, ModelInfo, Sampling, Segment
from stageline_worker.model.cutmodel import HIDDEN, CutModel
from stageline_worker.model.errors import StageError
from stageline_worker.model.generation import Generator
from stageline_worker.model.pooling import Pooling
from stageline_worker.model.sampler import Sampler
from stageline_worker.model.signature import EMBEDDING_OUTPUT

_IDS = "input_ids"
_MASK = "attention_mask"


class Stage:
    """Layers [lo, hi) of a model, loaded. Not thread-safe: one thread calls it.

    `generator` is None where the model makes no text, and has `max_sequences` slots. Of its own
    tensors, `parameters` counts the elements, `total_bytes` what they take on disk.
    """

    def __init__(
        self,
        cut: CutModel,
        *,
        info: ModelInfo,
        generator: Generator | None,
        pooling: Pooling | None,
        max_sequences: int,
        total_bytes: int,
        parameters: int,
    ) -> None:
        self.total_bytes = total_bytes
        self.parameters = parameters
        self._cut = cut
        self._info = info
        self._generator = generator
        self._pooling = pooling
        self._max_sequences = max_sequences
        self._sampler = Sampler(max_sequences, info.vocab_size, cut.device)

    @property
    def layers(self) -> tuple[int, int]:
        """The first one, and the one after the last."""
        return self._cut.layers

    @property
    def info(self) -> ModelInfo:
        """The whole model as clients see it."""
        return self._info

    @property
    def first(self) -> bool:
        """Whether this stage holds the embedding."""
        return self._cut.first

    @property
    def last(self) -> bool:
        """Whether this stage holds the head."""
        return self._cut.last

    @property
    def device(self) -> str:
        """Where it computes: cpu, or cuda:N."""
        return str(self._cut.device)

    @property
    def dtype(self) -> str:
        """What it computes in: float32, bfloat16 or float16."""
        return str(self._cut.dtype).removeprefix("torch.")

    @property
    def kv_tokens(self) -> int:
        """Tokens whose keys and values it can hold, all slots together; 0: it generates nothing."""
        return self._max_sequences * self._info.max_model_len if self._generator else 0

    @property
    def packs(self) -> bool:
        """Whether segments share a microbatch's time; else each takes as long as it does alone."""
        return self._generator is not None and self._generator.packs

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
        if self._generator is not None:
            self._generator.reset()

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
        self.forward(self.canary() if self.first else self._hidden())
        if self._generator is not None:
            first = (Segment(0, 0, 1, Sampling(seed=0, position=1)),)
            ids = {_IDS: torch.zeros(1, dtype=torch.int64)}
            self.forward(Microbatch(ids if self.first else self._hidden().tensors, first))
            self.reset()

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
        tensors = {name: tensor.to(self._cut.device) for name, tensor in microbatch.tensors.items()}
        mask = tensors.get(_MASK)
        options: dict[str, Any] = {} if mask is None else {_MASK: mask}
        names = self._cut.architecture.inputs if self.first else (HIDDEN,)
        entering = {name: tensors[name] for name in names if name in tensors and name != _MASK}
        output = self._cut.run(entering, **options)
        if self.last:
            return self._outputs(output, mask, microbatch.outputs)
        return {HIDDEN: output.contiguous(), **options}

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
        if self._generator is None:
            raise StageError(f"{self._info.architecture} does not generate text")
        segments, ids = microbatch.segments, microbatch.tensors.get(_IDS)
        entering = self._packed(microbatch)
        self._check_segments(segments, entering.shape[1])
        computed = self._generator.compute(entering, segments)
        if self.last:
            return self._sampler.draw(computed, segments, ids)
        counted = any(segment.prompt is not None for segment in segments)
        return {HIDDEN: computed.contiguous()} | (
            {_IDS: ids} if counted and ids is not None else {}
        )

    def _packed(self, microbatch: Microbatch) -> Tensor:
        """[1, tokens] of ids on stage 0, [1, tokens, hidden] on others."""
        if self.first:
            return microbatch.tensors[_IDS].to(self._cut.device).unsqueeze(0)
        return microbatch.tensors[HIDDEN].to(self._cut.device)

    def _check_segments(self, segments: Sequence[Segment], tokens: int) -> None:
        slots = [segment.slot for segment in segments]
        if len(set(slots)) < len(slots):
            raise StageError("two segments of one microbatch are in the same slot")
        for segment in segments:
            if not 0 <= segment.slot < self._max_sequences:
                raise StageError(
                    f"slot {segment.slot} was asked for, this stage has {self._max_sequences}"
                )
            if segment.start < 0 or segment.count < 1:
                raise StageError(
                    f"a segment of {segment.count} tokens from {segment.start} on is none"
                )
        if (counted := sum(segment.count for segment in segments)) != tokens:
            raise StageError(f"{tokens} tokens came for segments of {counted}")

    def _hidden(self) -> Microbatch:
        """The smallest thing that a stage before this one can send."""
        size = self._cut.model.config.hidden_size
        return Microbatch({HIDDEN: torch.zeros(1, 1, size, dtype=self._cut.dtype)})


def _longest(microbatch: Microbatch) -> int:
    """Tokens of the longest sequence, those in the cache counted."""
    if microbatch.segments:
        return max(segment.start + segment.count for segment in microbatch.segments)
    return max((tensor.shape[1] for tensor in microbatch.tensors.values()), default=0)
