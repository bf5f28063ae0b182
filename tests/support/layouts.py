"""A small layout, without a model behind it, and reports of its pipelines."""

from stageline.v1 import pipeline_pb2 as v1
from stageline_api.documents import PipelineAddress, RouterDocument, StageDocument
from stageline_local.layout import Layout, Pipeline


def layout(pipelines=1, partition=(2, 3, 1), ports=(21001, 21002, 21003), router=21000) -> Layout:
    """`pipelines` copies of a model with these stages."""
    addresses = tuple(f"127.0.0.1:{port}" for port in ports[: len(partition)])
    made = tuple(
        Pipeline(
            f"m-{index}",
            tuple(
                StageDocument(
                    model="m", pipeline=f"m-{index}", revision="r", plan_hash="h", stage=stage,
                    partition=partition, uri="file:///m", addresses=addresses, listen=address,
                )
                for stage, address in enumerate(addresses)
            ),
        )
        for index in range(pipelines)
    )  # fmt: skip
    document = RouterDocument(
        model="m",
        uri="file:///m",
        listen=f"127.0.0.1:{router}",
        pipelines=tuple(PipelineAddress(name=p.name, leader=p.leader) for p in made),
    )
    return Layout("m", made, document)


def report(state=v1.READY, stages=(), message="", **info):
    """A leader's report; `stages` are the workers' states, in order, None for a missing one."""
    workers = [
        v1.WorkerReport(
            stage=stage, state=one, loaded_bytes=50, total_bytes=100, loads=1, microbatches=7,
            compute_seconds=0.0012, hop_seconds=0.0003, transport="grpc",
        )
        for stage, one in enumerate(stages)
        if one is not None
    ]  # fmt: skip
    made = v1.PipelineReport(state=state, message=message, stages=workers)
    if info:
        made.info.CopyFrom(v1.ModelInfo(**info))
    return made
