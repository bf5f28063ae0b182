"""Which API server knows the resource: options of every command that looks at one."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stageline_cli.failure import Failure

if TYPE_CHECKING:
    from stageline_cli.kubeconfig import Access

DEFAULT_STATE_DIR = Path(".stageline")
_PLUGIN = "kubectl-stageline"

Namespace = Annotated[
    str | None, typer.Option("--namespace", "-n", help="Namespace; the context's own if none.")
]
StateDir = Annotated[Path, typer.Option(help="State folder of the `stageline up` to look at.")]
Kubeconfig = Annotated[Path | None, typer.Option(help="Look at the cluster of this kubeconfig.")]


def chosen_access(
    name: str | None,
    state_dir: Path,
    kubeconfig: Path | None,
    context: str | None = None,
    server: str | None = None,
) -> Access:
    """The API server that the options mean: an `up` that runs, else what kubectl would take."""
    from stageline_cli.kubeconfig import Access, kubeconfig_files, read_access
    from stageline_local.statedir import KUBECONFIG, running

    if server:
        return Access(server=server.rstrip("/"))
    if kubeconfig is None and context is None and Path(sys.argv[0]).name != _PLUGIN:
        ups = running(state_dir)
        chosen = [up for up in ups if up.name == name] or ups
        if len(chosen) > 1:
            names = ", ".join(up.name for up in ups)
            raise Failure(f"{len(ups)} models run from {state_dir} ({names}): name one of them")
        if chosen:
            return read_access([chosen[0] / KUBECONFIG])
    files = kubeconfig_files(kubeconfig, os.environ)
    if not files:
        raise Failure(
            f"no `stageline up` runs from {state_dir}, and there is no kubeconfig: start a model "
            "with `stageline up FILE`, or say with --state-dir where one runs"
        )
    return read_access(files, context)
