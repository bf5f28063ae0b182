"""What the router says of its model: metadata and configuration. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

from stageline.oip import grpc_service_pb2 as oip
from stageline.v1 import pipeline_pb2 as pb
from stageline_router.asking import generation_inputs, generation_outputs

PLATFORM = "stageline"
VERSION = "1"
SEQUENCE_SLOTS = "sequence_slots"


@dataclass(frozen=True, slots=True)
class Described:
    """One input or output, as clients are told of it."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    optional: bool = False


def inputs(info: pb.ModelInfo, has_tokenizer: bool, has_template: bool = False) -> list[Described]:
    """Tensors first; where text can be given instead of tokens, both are optional."""
    text = _text_inputs(info, has_template) if has_tokenizer else []
    tensors = [
        Described(spec.name, spec.datatype, tuple(spec.shape), spec.optional or bool(text))
        for spec in info.inputs
    ]
    return tensors + text


def outputs(info: pb.ModelInfo, has_tokenizer: bool) -> list[Described]:
    """Tensors first, then those of generated text."""
    tensors = [Described(spec.name, spec.datatype, tuple(spec.shape)) for spec in info.outputs]
    if info.task == pb.GENERATE and has_tokenizer:
        tensors += [Described(name, kind, tuple(s)) for name, kind, s in generation_outputs()]
    return tensors


def metadata(
    name: str, info: pb.ModelInfo, has_tokenizer: bool, has_template: bool
) -> oip.ModelMetadataResponse:
    """The answer to ModelMetadata."""
    described = oip.ModelMetadataResponse.TensorMetadata
    return oip.ModelMetadataResponse(
        name=name,
        versions=[VERSION],
        platform=PLATFORM,
        inputs=[
            described(name=i.name, datatype=i.datatype, shape=i.shape)
            for i in inputs(info, has_tokenizer, has_template)
        ],
        outputs=[
            described(name=o.name, datatype=o.datatype, shape=o.shape)
            for o in outputs(info, has_tokenizer)
        ],
    )


def config(
    name: str,
    info: pb.ModelInfo,
    has_tokenizer: bool,
    has_template: bool,
    max_batch_size: int,
    max_delay: float,
    sequence_slots: int,
) -> oip.ModelConfigResponse:
    """The answer to ModelConfig. `max_delay` in seconds.

    max_batch_size is 0, as for Triton's decoupled models: shapes are told with their batch
    dimension, so nothing of a request's shape is implied. `sequence_slots` is how many texts all
    ready pipelines make at once; it is told as a parameter, a field for it there is none.
    """
    batching = oip.ModelDynamicBatching(
        preferred_batch_size=[max_batch_size], max_queue_delay_microseconds=round(max_delay * 1e6)
    )
    decoupled = info.task == pb.GENERATE
    return oip.ModelConfigResponse(
        config=oip.ModelConfig(
            name=name,
            platform=PLATFORM,
            backend=PLATFORM,
            max_batch_size=0,
            input=_config_inputs(inputs(info, has_tokenizer, has_template)),
            output=[
                oip.ModelOutput(name=o.name, data_type=_type(o), dims=o.shape)
                for o in outputs(info, has_tokenizer)
            ],
            dynamic_batching=batching,
            model_transaction_policy=oip.ModelTransactionPolicy(decoupled=decoupled),
            parameters=(
                {SEQUENCE_SLOTS: oip.ModelParameter(string_value=str(sequence_slots))}
                if decoupled
                else {}
            ),
        )
    )


def _text_inputs(info: pb.ModelInfo, has_template: bool) -> list[Described]:
    if info.task == pb.GENERATE:
        given = generation_inputs(chat=has_template)
        return [Described(name, kind, tuple(shape), o) for name, kind, shape, o in given]
    return [Described("text_input", "BYTES", (-1,), optional=True)] if info.embeds_text else []


def _config_inputs(described: Iterable[Described]) -> list[oip.ModelInput]:
    return [
        oip.ModelInput(name=i.name, data_type=_type(i), dims=i.shape, optional=i.optional)
        for i in described
    ]


def _type(described: Described) -> oip.DataType:
    name = "STRING" if described.datatype == "BYTES" else described.datatype
    return cast(oip.DataType, oip.DataType.Value(f"TYPE_{name}"))
