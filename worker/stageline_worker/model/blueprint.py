"""A checkpoint's model on the meta device: what each tensor is for, what layers cost and return.

One pass of the uncut model over shapes alone, with its real cache, checks that its layers are a
chain and shows the KV cache and the outputs as they really are. It takes no weights and less than
a few seconds for the largest models, so both the profile and every load do it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn

from stageline_worker.model.architectures import Architecture
from stageline_worker.model.checkpoint import Checkpoint, StoredTensor
from stageline_worker.model.errors import CheckpointError, UnsupportedModelError
from stageline_worker.model.linear import is_linear
from stageline_worker.model.reader import DTYPES
from stageline_worker.model.weights import assign, rename

EMBEDDING = -1
HEAD = -2
_META = torch.device("meta")
_BATCH, _TOKENS = 1, 5


@dataclass(frozen=True, slots=True)
class LayerCache:
    """What one layer keeps of one token: keys and values, in elements of each of its heads.

    `window` is the number of tokens that it looks back on, the newest among them; None: all.
    """

    heads: int
    key_size: int
    value_size: int
    window: int | None

    @property
    def values_per_token(self) -> int:
        """Elements, keys and values together."""
        return self.heads * (self.key_size + self.value_size)

    def kept(self, tokens: int) -> int:
        """Of a sequence of `tokens` tokens, how many it keeps."""
        return tokens if self.window is None else min(self.window, tokens)


@dataclass(frozen=True, slots=True)
class Blueprint:
    """The uncut model of a checkpoint, without weights."""

    architecture: Architecture
    layers: int
    # Unit of each stored tensor that the model uses: layer number, EMBEDDING or HEAD.
    units: dict[str, int]
    # The model's weights that are another weight of it: by name, what they are.
    ties: dict[str, str]
    # Stored tensors of the embedding that the head computes with too.
    tied: frozenset[str]
    # Stored matrices of linear layers.
    matrices: frozenset[str]
    # Elements of the embedding that one token reads: rows of tables, all of the rest.
    embedding_row: int
    caches: tuple[LayerCache, ...]
    outputs: dict[str, tuple[int, ...]]  # shapes for one row of _TOKENS tokens
    left_out: bool  # the architecture's optional module is not in the checkpoint

    def owned(self, checkpoint: Checkpoint, lo: int, hi: int) -> list[StoredTensor]:
        """The tensors that a stage of layers [lo, hi) computes with, in file order."""
        first, last = lo == 0, hi == self.layers
        own = [
            checkpoint.tensors[name]
            for name, unit in self.units.items()
            if lo <= unit < hi
            or (unit == EMBEDDING and (first or (last and name in self.tied)))
            or (unit == HEAD and last)
        ]
        return sorted(own, key=lambda tensor: (tensor.file, tensor.offset))


def draw(checkpoint: Checkpoint) -> Blueprint:
    """Check the checkpoint against its architecture; raises ModelError where they disagree."""
    architecture = checkpoint.architecture
    left_out = _lacks_optional(architecture, checkpoint)
    # Not float32: the grouped matrix product of experts has no meta kernel for it.
    model = build(architecture, checkpoint.config, torch.bfloat16, left_out)
    layers = len(model.get_submodule(architecture.layers))
    names = rename(model, checkpoint.tensors)
    units = {key: _unit(architecture, name) for key, name in names.items()}
    # A head that is stored although config.json ties it is used as stored.
    ties = {
        name: source
        for name, source in model.all_tied_weights_keys.items()
        if name not in names.values()
    }
    tied = set(ties.values())
    _check_layers(architecture, layers, units.values())
    _check_tensors(architecture, model, checkpoint, names, set(ties))
    outputs, caches = _trial(architecture, model, checkpoint.config)
    return Blueprint(
        architecture=architecture,
        layers=layers,
        units=units,
        ties=ties,
        tied=frozenset(k for k, unit in units.items() if unit == EMBEDDING and names[k] in tied),
        matrices=frozenset(key for key, name in names.items() if _is_matrix(model, name)),
        embedding_row=sum(_row(attrgetter(name)(model)) for name in architecture.embedding),
        caches=caches,
        outputs=outputs,
        left_out=left_out,
    )


def build(architecture: Architecture, config: Any, dtype: torch.dtype, left_out: bool) -> Any:
    """The whole model on the meta device, in evaluation mode."""
    import transformers

    cls = getattr(transformers, architecture.name)
    config = copy.deepcopy(config)
    config.dtype = dtype
    with ExitStack() as stack:
        for context in cls.get_init_context(dtype, False, False, None):
            stack.enter_context(context)
        try:
            model = cls(config)
        except Exception as error:  # a config can break its class in any way
            reason = " ".join(str(error).split())[:300]
            raise UnsupportedModelError(
                f"config.json does not describe a {architecture.name}: {reason}"
            ) from error
    if left_out and architecture.optional is not None:
        setattr(model, architecture.optional[0], None)
    return model.eval()


def _lacks_optional(architecture: Architecture, checkpoint: Checkpoint) -> bool:
    if architecture.optional is None:
        return False
    part = f".{architecture.optional[0]}."
    return not any(part in f".{name}" for name in checkpoint.tensors)


def _unit(architecture: Architecture, name: str) -> int:
    if name.startswith(f"{architecture.layers}."):
        return int(name.removeprefix(f"{architecture.layers}.").split(".")[0])
    if _within(name, architecture.embedding):
        return EMBEDDING
    if _within(name, architecture.head):
        return HEAD
    raise UnsupportedModelError(
        f"{architecture.name} has {name} outside of embedding, layers and head: it cannot be cut"
    )


def _is_matrix(model: Any, name: str) -> bool:
    owner, _, leaf = name.rpartition(".")
    return leaf == "weight" and is_linear(model.get_submodule(owner))


def _within(name: str, modules: Iterable[str]) -> bool:
    return any(name.startswith(f"{module}.") for module in modules)


def _check_layers(architecture: Architecture, layers: int, units: Iterable[int]) -> None:
    missing = sorted(set(range(layers)) - set(units))
    if missing:
        raise CheckpointError(
            f"the checkpoint has no tensors for layer {missing[0]} of the {layers} layers of "
            f"{architecture.name} that config.json promises"
        )


def _check_tensors(
    architecture: Architecture,
    model: Any,
    checkpoint: Checkpoint,
    names: dict[str, str],
    ties: set[str],
) -> None:
    for key in names:
        if (dtype := checkpoint.tensors[key].dtype) not in DTYPES:
            raise UnsupportedModelError(
                f"{key} is stored as {dtype}, which this version cannot read"
            )
    used = {
        key: torch.empty(tensor.shape, dtype=torch.bfloat16, device=_META)
        for key, tensor in checkpoint.tensors.items()
        if key in names
    }
    missing = assign(model, used, torch.bfloat16, _META) - ties
    if missing:
        raise CheckpointError(
            f"the checkpoint lacks {_some(missing)}, which {architecture.name} needs"
        )


def _some(names: Iterable[str]) -> str:
    first, *rest = sorted(names)
    return f"{first} and {len(rest)} more tensors" if rest else first


def _trial(
    architecture: Architecture, model: Any, config: Any
) -> tuple[dict[str, tuple[int, ...]], tuple[LayerCache, ...]]:
    from transformers import DynamicCache

    inputs: dict[str, Any] = {architecture.inputs[0]: _trial_input(architecture, config)}
    if architecture.generates:
        inputs.update(use_cache=True, past_key_values=DynamicCache(config=config))
    with torch.inference_mode(), _META:
        output = _forward_checked(architecture, model, inputs)
    shapes = {
        name: tuple(value.shape) for name, value in output.items() if isinstance(value, Tensor)
    }
    cache = inputs.get("past_key_values")
    return shapes, tuple(map(_layer_cache, cache.layers if cache is not None else ()))


def _trial_input(architecture: Architecture, config: Any) -> Tensor:
    if architecture.inputs[0] == "pixel_values":
        shape = (_BATCH, *image_shape(config))
        return torch.zeros(shape, dtype=torch.bfloat16, device=_META)
    return torch.zeros(_BATCH, _TOKENS, dtype=torch.long, device=_META)


def image_shape(config: Any) -> tuple[int, int, int]:
    """Channels, height and width of the images of a vision model."""
    size = config.image_size
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    return config.num_channels, height, width


def _forward_checked(architecture: Architecture, model: Any, inputs: dict[str, Any]) -> Any:
    layers = model.get_submodule(architecture.layers)
    returned: list[Any] = []

    def watch(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        given = args[0] if args else kwargs.get("hidden_states")
        if not isinstance(out, Tensor) or (returned and given is not returned[-1]):
            raise UnsupportedModelError(
                f"{architecture.name} cannot be cut into stages: layer {len(returned)} does not "
                "take what the layer before it returned, and that alone"
            )
        returned.append(out)

    hooks = [layer.register_forward_hook(watch, with_kwargs=True) for layer in layers]
    try:
        return model(**inputs)
    except UnsupportedModelError:
        raise
    except Exception as error:  # shapes that do not fit each other, however they show
        reason = " ".join(str(error).split())[:300]
        raise UnsupportedModelError(
            f"config.json does not describe a {architecture.name} that computes: {reason}"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()


def _layer_cache(layer: Any) -> LayerCache:
    (_, heads, _, key_size), value_size = layer.keys.shape, layer.values.shape[3]
    return LayerCache(heads, key_size, value_size, getattr(layer, "sliding_window", None))


def _row(module: nn.Module | None) -> int:
    if module is None:
        return 0
    total = sum(parameter.numel() for parameter in module.parameters())
    tables = [part for part in module.modules() if isinstance(part, nn.Embedding)]
    return total - sum(table.weight.numel() - table.embedding_dim for table in tables)
