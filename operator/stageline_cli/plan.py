"""`stageline plan`: which layers each stage would get, before anything is started."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from stageline_api.manifest import ManifestError
from stageline_api.plan import Plan, PlanError, plan
from stageline_api.plan_request import plan_request
from stageline_api.quantity import format_bytes, format_bytes_up
from stageline_cli.manifest_file import load_manifest
from stageline_local.profiling import ProfileError, profile_model


def plan_command(
    file: Annotated[Path, typer.Option("--file", "-f", help="Manifest of the PipelineDeployment.")],
    stages: Annotated[
        int | None,
        typer.Option(min=1, help="Plan for so many stages, whatever the manifest says."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the plan as JSON, sizes in bytes.")
    ] = False,
) -> None:
    """Show how the model of a manifest would be cut, and whether it fits.

    Reads the model's config and the headers of its weight files, never the weights, and starts
    nothing. A plan that cannot be is refused with what would fit.

    Example:

        stageline plan -f llama.yaml

        stageline plan -f llama.yaml --stages 6 --json
    """
    try:
        made = plan_file(file, stages)
    except (ManifestError, ProfileError, PlanError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    if as_json:
        typer.echo(made.model_dump_json(indent=2))
        return
    console = Console()
    console.print(plan_table(made))
    console.print(plan_summary(made))


def plan_file(file: Path, stages: int | None = None) -> Plan:
    """The plan of the manifest in `file`; ManifestError, ProfileError or PlanError say why not."""
    request = plan_request(load_manifest(file))
    if stages is not None:
        request = replace(request, stages=stages, partition=None)
    return plan(profile_model(request.uri), request)


def plan_table(plan: Plan) -> Table:
    """One row a stage."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("stage", "layers", "weights", "KV room", "needs", "pod offers", "time share"):
        table.add_column(heading, justify="left" if heading == "layers" else "right", no_wrap=True)
    for stage in plan.stages:
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


def plan_summary(plan: Plan) -> str:
    """One line: how even the plan is, and whether memory was looked at."""
    memory = (
        "every stage fits the memory that its pod offers"
        if plan.memory_checked
        else "memory was not checked (set spec.resources.deviceMemory)"
    )
    return f"slowest stage {plan.bottleneck_ratio:.2f}x the mean; {memory}"
