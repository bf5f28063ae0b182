"""`stageline trace`: what each stage of a running pipeline did of late."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stageline_cli.failure import Failure
from stageline_cli.looking import DEFAULT_STATE_DIR, Kubeconfig, Namespace, StateDir, chosen_access

if TYPE_CHECKING:
    import grpc

    from stageline.v1 import pipeline_pb2 as pb

_SECONDS = 20.0


def trace(
    pipeline: Annotated[
        str,
        typer.Argument(
            metavar="NAME|HOST:PORT",
            help="A PipelineDeployment, or the address of a pipeline's leader, its stage 0.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The trace, for ui.perfetto.dev.")
    ] = Path("trace.json"),
    png: Annotated[Path | None, typer.Option(help="A picture of it too; needs Pillow.")] = None,
    last: Annotated[
        int | None,
        typer.Option(min=1, help="Newest microbatches of each stage; all that are kept if none."),
    ] = None,
    namespace: Namespace = None,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    kubeconfig: Kubeconfig = None,
    credentials: Annotated[
        Path | None,
        typer.Option(help="With HOST:PORT: folder of ca.crt, tls.crt and tls.key of a router."),
    ] = None,
) -> None:
    """Write what each stage of a pipeline did of late: prefill, decode, send, wait.

    Every stage keeps its last 8,192 microbatches. Open the file in ui.perfetto.dev or
    chrome://tracing. The leader must be reached from here: of a cluster's, forward its port.

    \b
    Examples:
      stageline trace tiny -o trace.json --png trace.png
      stageline trace 127.0.0.1:7070 --credentials tls/ --last 200
    """
    from stageline_cli.spans import chrome

    if ":" in pipeline:
        found = _ask(pipeline, last or 0, credentials)
    else:
        found = _ask_named(pipeline, last or 0, namespace, state_dir, kubeconfig)
    if not any(stage.spans for stage in found.stages):
        raise Failure(f"{found.pipeline} has computed nothing yet: send it a request first")
    _write(output, json.dumps(chrome(found)).encode())
    if png is not None:
        _draw(found, png)
    for stage in found.stages:
        typer.echo(_summary(stage))
    typer.echo(f"{output} is written: open it in https://ui.perfetto.dev")


def _ask_named(
    name: str, last: int, namespace: str | None, state_dir: Path, kubeconfig: Path | None
) -> pb.PipelineTrace:
    from stageline_cli.apiserver import ApiReader
    from stageline_cli.leaders import find_leader

    access = chosen_access(name, state_dir, kubeconfig)
    leader = find_leader(ApiReader(access), namespace or access.namespace, name)
    with leader.credentials() as folder:
        try:
            return _ask(leader.address, last, folder)
        except Failure as failure:
            raise Failure(
                f"{failure}. From outside of its cluster: kubectl port-forward {leader.pod} 7070, "
                "then `stageline trace 127.0.0.1:7070` with --credentials"
            ) from None


def _ask(leader: str, last: int, credentials: Path | None) -> pb.PipelineTrace:
    import grpc

    from stageline.v1 import pipeline_pb2 as pb
    from stageline.v1.pipeline_pb2_grpc import PipelineStub

    with _channel(leader, credentials) as channel:
        try:
            found: pb.PipelineTrace = PipelineStub(channel).Trace(
                pb.TraceRequest(spans=last), timeout=_SECONDS
            )
        except grpc.RpcError as error:
            raise Failure(f"no trace from {leader}: {error.details()}") from None
    return found


def _channel(leader: str, credentials: Path | None) -> grpc.Channel:
    import grpc

    options = [("grpc.max_receive_message_length", -1), ("grpc.enable_http_proxy", 0)]
    if credentials is None:
        return grpc.insecure_channel(leader, options=options)
    from stageline_wire.credentials import CHANNEL_OPTIONS, Credentials, CredentialsError

    try:
        shown = Credentials.load(credentials).channel()
    except CredentialsError as error:
        raise Failure(str(error)) from None
    return grpc.secure_channel(leader, shown, options=[*options, *CHANNEL_OPTIONS])


def _summary(stage: pb.StageTrace) -> str:
    """One line: how much of its time a stage computed, and waited while there was work."""
    computed = sum(span.end - span.begin for span in stage.spans)
    waited = sum(span.begin - span.free for span in stage.spans if not span.idle)
    sent = sum(span.sent - span.end for span in stage.spans)
    whole = max(computed + waited + sent, 1e-9)
    return (
        f"stage {stage.stage}: {len(stage.spans)} microbatches, computed {computed:.3f} s, "
        f"waited {waited / whole:.1%} while there was work, sent {sent / whole:.1%}"
    )


def _draw(found: pb.PipelineTrace, png: Path) -> None:
    from stageline_cli.spans import picture

    try:
        image = picture(found)
    except ImportError:
        raise Failure("a picture needs Pillow: pip install pillow") from None
    try:
        image.save(png, "PNG")
    except OSError as error:
        raise Failure(f"{png} cannot be written: {error.strerror}") from None


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise Failure(f"{path} cannot be written: {error.strerror}") from None
