"""`stageline up`: a manifest on this machine, stages as processes."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from stageline_cli.failure import Failure

if TYPE_CHECKING:
    from stageline_api.plan import Plan
    from stageline_api.resource import PipelineDeployment
    from stageline_cli.screen import Screen
    from stageline_local.view import View

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_KILLED = 130


def up(
    file: Annotated[Path, typer.Argument(help="Manifest of the PipelineDeployment.")],
    port: Annotated[
        int | None,
        typer.Option(
            min=1, max=65535, help="Port of the router on 127.0.0.1; spec.router.port if none."
        ),
    ] = None,
    state_dir: Annotated[
        Path, typer.Option(help="Folder for documents and logs, one folder in it per name.")
    ] = Path(".stageline"),
    plain: Annotated[
        bool, typer.Option("--plain", help="Print lines on change, no live table.")
    ] = False,
) -> None:
    """Serve the model of a manifest on this machine, for development and demos.

    Plans it, starts a process for each stage and one for the router, shows what they do, and
    restarts what dies. A process that dies three times before it was ever up ends everything, with
    its reason and exit code 1.

    Ctrl-C or SIGTERM stops: the router answers what it has accepted, then the stages go, within 20
    seconds; the exit code is 0. A second Ctrl-C kills; the exit code is 130. No process is left
    either way.

    \b
    Examples:
      stageline up llama.yaml
      stageline up examples/minilm.yaml --port 9001
    """
    try:
        with _stop_signals_raise():
            deployment, plan = _plan(file, plain=plain)
    except _StopRequested:
        return
    _serve(deployment, plan, port or deployment.spec.router.port, state_dir, plain=plain)


def _plan(file: Path, *, plain: bool) -> tuple[PipelineDeployment, Plan]:
    from rich.console import Console

    from stageline_api.manifest import ManifestError
    from stageline_api.plan import PlanError, plan
    from stageline_api.plan_request import plan_request
    from stageline_cli.manifest_file import load_manifest
    from stageline_cli.plan import plan_summary, plan_table
    from stageline_local.profiling import ProfileError, profile_model

    try:
        deployment = load_manifest(file)
        if deployment.spec.replicas == 0:
            name = deployment.metadata.name
            raise Failure(f"{name} has 0 replicas, so nothing to start: set spec.replicas to 1")
        request = plan_request(deployment)
        made = plan(profile_model(request.uri), request)
    except (ManifestError, ProfileError, PlanError) as error:
        raise Failure(str(error)) from None
    console = Console(width=120) if plain else Console()
    console.print(plan_table(made))
    console.print(plan_summary(made))
    return deployment, made


def _serve(
    deployment: PipelineDeployment, plan: Plan, port: int, state_dir: Path, *, plain: bool
) -> None:
    from stageline_api.rendering import RenderError
    from stageline_local.layout import lay_out, process_specs
    from stageline_local.ports import PortTaken, require_free
    from stageline_local.statedir import StateDir, StateDirError
    from stageline_local.supervisor import GaveUp, Supervisor

    async def supervise(state: StateDir) -> bool:
        layout = lay_out(deployment, plan, port)
        session = _Session(layout.router.listen, layout.model)
        supervisor = Supervisor(layout, process_specs(layout, state), session.show)
        session.listen_for_signals(supervisor)
        with _screen(supervisor, plain=plain) as session.screen:
            await supervisor.run()
        return session.killed

    try:
        require_free(port)
        with StateDir(state_dir, deployment.metadata.name) as state:
            try:
                killed = asyncio.run(supervise(state))
            except GaveUp as error:
                raise Failure(f"{error}\nIts log is in {state.logs}.") from None
    except (PortTaken, StateDirError, RenderError) as error:
        raise Failure(str(error)) from None
    if killed:
        raise typer.Exit(_KILLED)


def _screen(supervisor: Any, *, plain: bool) -> Screen:
    from rich.console import Console

    from stageline_cli.screen import Lines, Terminal

    console = Console()
    if plain or not console.is_terminal:
        return Lines(gone=supervisor.stop)
    return Terminal(console)


@dataclass(slots=True)
class _Session:
    """Between the supervisor, the screen and the user's signals."""

    address: str
    model: str
    screen: Screen | None = None
    ready: bool = False
    stopping: bool = False
    killed: bool = False

    def show(self, view: View) -> None:
        """Show the view; say so when the model has become ready, or is no longer."""
        assert self.screen is not None, "shown before there is a screen"
        self.screen.show(view)
        if view.ready and not self.ready:
            self.screen.say(f"{self.model} is ready at {self.address}")
            self.screen.say(f"  try: {try_next(view, self.address)}")
        self.ready = view.ready

    def listen_for_signals(self, supervisor: Any) -> None:
        """The first stop signal ends in order, the second at once."""

        def asked() -> None:
            if self.stopping:
                self.killed = True
                supervisor.kill()
                return
            self.stopping = True
            if self.screen:
                self.screen.say("stopping: the router drains, then the stages (Ctrl-C kills)")
            supervisor.stop()

        loop = asyncio.get_running_loop()
        for number in _STOP_SIGNALS:
            loop.add_signal_handler(number, asked)


def try_next(view: View, address: str) -> str:
    """A command that the model of this view answers."""
    from stageline.v1 import pipeline_pb2
    from stageline_cli.infer import DEFAULT_ADDRESS

    where = "" if address == DEFAULT_ADDRESS else f" --address {address}"
    if view.info is not None and view.info.task == pipeline_pb2.GENERATE:
        return f'stageline generate "Once upon a time"{where}'
    if view.info is not None and view.info.embeds_text:
        return f'stageline infer --text "A cat sat on the mat."{where}'
    names = [tensor.name for tensor in view.info.inputs if not tensor.optional] if view.info else []
    inputs = " ".join(f"--input {name}=@{name}.npy" for name in names or ["NAME"])
    return f"stageline infer {inputs}{where}"


class _StopRequested(Exception):
    """A stop signal came before anything was started."""


@contextmanager
def _stop_signals_raise() -> Iterator[None]:
    def stop(number: int, frame: object) -> NoReturn:
        raise _StopRequested

    before = {number: signal.signal(number, stop) for number in _STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
