"""What the attention modules of a stage share."""

from __future__ import annotations

from stageline_worker.model.kv import KeyValues
from stageline_worker.model.step import Step


class Place:
    """A KV cache, and the step that is computed over it.

    `latent`: what is kept of a token is not its keys and values but what they are made from.
    """

    def __init__(self, kv: KeyValues, latent: bool) -> None:
        self.kv = kv
        self.latent = latent
        self.step: Step | None = None

    @property
    def computed(self) -> Step:
        """The step; only while one is computed."""
        assert self.step is not None
        return self.step
