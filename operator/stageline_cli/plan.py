"""`stageline plan`: which layers each stage would get, before anything is started."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stageline_cli.failure import Failure

if TYPE_CHECKING:
    from rich.table import Table

    from stageline_api.plan import Plan


def plan_command(
    file: Annotated[
        Path,
        typer.Option(
            "--file", "-f", help="Manifest of the PipelineDeployment.", show_default=False
        ),
    ],
    stages: Annotated[
        int | None,
        typer.Option(min=1, help="Plan for so many stages, whatever the manifest says."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the plan as JSON, sizes in bytes.")
    ] = False,
) -> None:
    """Show how the model of a manifest would be cut into stages, and whether each stage fits.

    Reads the model's config and the headers of its weight files, never the weights, and starts
    nothing. A model that does not fit is refused with what would: more stages, or less room.

    \b
    Examples:
      stageline plan -f llama.yaml
      stageline plan -f llama.yaml --stages 6 --json
    """
    made = _plan_file(file, stages)
    if as_json:
        typer.echo(made.model_dump_json(indent=2))
        return
    from rich.console import Console

    console = Console()
    console.print(plan_table(made))
    console.print(plan_summary(made), soft_wrap=True)


def plan_table(made: Plan) -> Table:
    """One row a stage."""
    from rich.table import Table

    from stageline_api.quantity import format_bytes, format_bytes_up

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("stage", "layers", "weights", "KV room", "needs", "pod offers", "time share"):
        table.add_column(heading, justify="left" if heading == "layers" else "right", no_wrap=True)
    for stage in made.stages:
        offers = stage.offers_bytes
        table.add_row(
            str(stage.stage),
            f"{stage.first_layer}-{stage.end_layer - 1}",
            format_bytes_up(stage.weight_bytes),
            format_bytes_up(stage.kv_bytes) if stage.kv_bytes else "-",
            format_bytes_up(stage.needs_bytes),
            "unknown" if offers is None else format_bytes(offers),
            f"{stage.time_share:.1%}",
        )
    return table


def plan_summary(made: Plan) -> str:
    """One line: how even the plan is, and whether memory was looked at."""
    memory = (
        "every stage fits the memory that its pod offers"
        if made.memory_checked
        else "memory was not checked, as spec.resources.deviceMemory is not set"
    )
    return f"slowest stage {made.bottleneck_ratio:.2f}x the mean; {memory}"


def _plan_file(file: Path, stages: int | None) -> Plan:
    from stageline_api.manifest import ManifestError
    from stageline_api.plan import PlanError, plan
    from stageline_api.plan_request import plan_request
    from stageline_cli.manifest_file import load_manifest
    from stageline_local.profiling import ProfileError, profile_model

    try:
        request = plan_request(load_manifest(file))
        if stages is not None:
            request = replace(request, stages=stages, partition=None)
        return plan(profile_model(request.uri), request)
    except (ManifestError, ProfileError, PlanError) as error:
        raise Failure(str(error)) from None
