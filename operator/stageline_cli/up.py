"""`stageline up`: a manifest on this machine, stages as processes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from stageline_cli.failure import Failure

if TYPE_CHECKING:
    from stageline_api.plan import Plan
    from stageline_api.resource import PipelineDeployment
    from stageline_cli.screen import Screen
    from stageline_local.layout import Layout
    from stageline_local.statedir import StateDir
    from stageline_local.supervisor import Supervisor
    from stageline_local.view import View

_NOHUP = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # `nohup stageline up` means it
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, *(() if _NOHUP else (signal.SIGHUP,)))
_KILLED = 130
# `timeout` and some terminals send one signal to the process and again to its group: that is one.
_ONE_SIGNAL_SECONDS = 0.3


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
    from stageline_cli.manifest_file import load_manifest

    try:
        with _stop_signals_raise(), _refusals():
            killed = _serve(load_manifest(file), port, state_dir, plain=plain)
    except _StopRequested:
        return
    if killed:
        raise typer.Exit(_KILLED)


def _serve(deployment: PipelineDeployment, port: int | None, folder: Path, *, plain: bool) -> bool:
    """Serve until told to stop; True when told so twice."""
    from stageline_local.ports import require_free
    from stageline_local.statedir import StateDir
    from stageline_local.supervisor import GaveUp

    name, port = deployment.metadata.name, port or deployment.spec.router.port
    if deployment.spec.replicas == 0:
        raise Failure(f"{name} has 0 replicas, so nothing to start: set spec.replicas to 1")
    require_free(port)
    with StateDir(folder, name) as state:
        plan = _plan(deployment)
        try:
            return asyncio.run(_supervise(deployment, plan, port, state, plain=plain))
        except GaveUp as error:
            raise Failure(f"{error}\nIts log is in {state.logs}.") from None


def _plan(deployment: PipelineDeployment) -> Plan:
    from rich.console import Console

    from stageline_api.plan import plan
    from stageline_api.plan_request import plan_request
    from stageline_cli.plan import plan_summary, plan_table
    from stageline_local.profiling import profile_model

    request = plan_request(deployment)
    made = plan(profile_model(request.uri), request)
    console = Console()
    console.print(plan_table(made))
    console.print(plan_summary(made), soft_wrap=True)
    return made


async def _supervise(
    deployment: PipelineDeployment, plan: Plan, port: int, state: StateDir, *, plain: bool
) -> bool:
    from stageline_local.layout import lay_out, process_specs
    from stageline_local.supervisor import Supervisor

    layout = lay_out(deployment, plan, port)
    with _screen(plain=plain) as screen:
        session = _Session(layout, screen)
        supervisor = Supervisor(layout, process_specs(layout, state), session.show)
        session.obey_signals(supervisor)
        await supervisor.run()
    return session.killed


@contextmanager
def _refusals() -> Iterator[None]:
    """Every way in which a manifest or this machine says no, as the command's one error."""
    from stageline_api.manifest import ManifestError
    from stageline_api.plan import PlanError
    from stageline_api.rendering import RenderError
    from stageline_local.ports import PortTaken
    from stageline_local.profiling import ProfileError
    from stageline_local.statedir import StateDirError

    try:
        yield
    except (
        ManifestError, PlanError, ProfileError, RenderError, PortTaken, StateDirError,
    ) as error:  # fmt: skip
        raise Failure(str(error)) from None


def _screen(*, plain: bool) -> Screen:
    from rich.console import Console

    from stageline_cli.screen import Lines, Terminal

    console = Console()
    return Lines() if plain or not console.is_terminal else Terminal(console)


class _Session:
    """Between the supervisor, the screen and the user's signals."""

    def __init__(self, layout: Layout, screen: Screen) -> None:
        self._model = layout.model
        self._address = layout.router.listen
        self._screen = screen
        self._read = True
        self._ready = False
        self._told = False
        self._stop: Callable[[], None] | None = None
        self.killed = False

    def show(self, view: View) -> None:
        """Show the view, and say when the model becomes ready."""
        self._print(lambda: self._screen.show(view))
        if view.ready and not self._ready:
            again = " again" if self._told else ""
            self._say(f"{self._model} is ready{again} at {self._address}")
            if not self._told:
                self._say(f"  try: {try_next(view, self._address)}")
            self._told = True
        self._ready = view.ready

    def obey_signals(self, supervisor: Supervisor) -> None:
        """The first stop signal ends in order, the second at once."""
        self._stop = supervisor.stop

        def kill(since: float) -> None:
            if loop.time() - since > _ONE_SIGNAL_SECONDS:
                self.killed = True
                supervisor.kill()

        def stop() -> None:
            for number in _STOP_SIGNALS:
                loop.add_signal_handler(number, kill, loop.time())
            self._say("stopping: the router drains, then the stages go (Ctrl-C again kills)")
            supervisor.stop()

        loop = asyncio.get_running_loop()
        for number in _STOP_SIGNALS:
            loop.add_signal_handler(number, stop)

    def _say(self, line: str) -> None:
        self._print(lambda: self._screen.say(line))

    def _print(self, work: Callable[[], None]) -> None:
        """Print; when nobody reads any more, stop and be silent."""
        if not self._read:
            return
        try:
            work()
        except OSError:
            self._read = False
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if self._stop:
                self._stop()


def try_next(view: View, address: str) -> str:
    """A command that the model of this view answers."""
    from stageline.v1 import pipeline_pb2
    from stageline_cli.infer import DEFAULT_ADDRESS

    where = "" if address == DEFAULT_ADDRESS else f" --address {address}"
    if view.info is not None and view.info.task == pipeline_pb2.GENERATE:
        return f'stageline generate "The "{where}'
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
