"""`stageline up`: a manifest on this machine, in a cluster of processes."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from stageline_cli.failure import Failure

if TYPE_CHECKING:
    from stageline_api.resource import PipelineDeployment
    from stageline_cli.screen import Screen
    from stageline_cli.serving import Serving
    from stageline_local.statedir import StateDir

Object = dict[str, Any]

_NOHUP = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # `nohup stageline up` means it
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, *(() if _NOHUP else (signal.SIGHUP,)))
_KILLED = 130
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
# `timeout` and some terminals send one signal to the process and again to its group: that is one.
_ONE_SIGNAL_SECONDS = 0.3
_ASKED = 50
_ASK_AGAIN_SECONDS = 0.1


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

    Starts a small cluster in this process, and in it the operator that would run in any other:
    it plans the model, has a process started for each stage and one for the router, shows what they
    do, and repairs what dies. What cannot be served, or dies three times before the model was ever
    ready, ends everything with its reason and exit code 1.

    Another terminal may look and change: `stageline status`, or kubectl with the kubeconfig that
    is printed. Deleting the resource ends everything; the exit code is 0.

    Ctrl-C or SIGTERM stops: the router answers what it has accepted, then the stages go, within 20
    seconds; the exit code is 0. A second Ctrl-C kills; the exit code is 130. No process is left
    either way.

    \b
    Examples:
      stageline up llama.yaml
      stageline up examples/minilm.yaml --port 9001
    """
    from stageline_cli.machine import refusals
    from stageline_cli.manifest_file import load_manifest

    try:
        with _stop_signals_raise(), refusals():
            killed = _serve(load_manifest(file), port, state_dir, plain=plain)
    except _StopRequested:
        return
    if killed:
        raise typer.Exit(_KILLED)


def _serve(deployment: PipelineDeployment, port: int | None, folder: Path, *, plain: bool) -> bool:
    """Serve until told to stop; True when told so twice."""
    from stageline_cli.machine import prepared

    port = port or deployment.spec.router.port
    with prepared(deployment, port, folder) as state:
        return asyncio.run(_supervise(deployment, port, state, plain=plain))


async def _supervise(
    deployment: PipelineDeployment, port: int, state: StateDir, *, plain: bool
) -> bool:
    from stageline_cli.serving import Serving

    with _screen(plain=plain) as screen:
        show = _Show(deployment.metadata.name, f"127.0.0.1:{port}", screen)
        serving = Serving(as_written(deployment), port, state, show)
        show.obey_signals(serving)
        await serving.run()
    return show.killed


def as_written(deployment: PipelineDeployment) -> Object:
    """The resource with what its author wrote, as `kubectl apply` would send it."""
    written = deployment.model_dump(mode="json", by_alias=True, exclude_unset=True)
    metadata = {"namespace": deployment.metadata.namespace, **written["metadata"]}
    kind = {"apiVersion": deployment.api_version, "kind": deployment.kind}
    resource = {**kind, **written, "metadata": metadata}
    applied = {_LAST_APPLIED: json.dumps(resource)}
    annotations = {**metadata.get("annotations", {}), **applied}
    return {**resource, "metadata": {**metadata, "annotations": annotations}}


def _screen(*, plain: bool) -> Screen:
    from rich.console import Console

    from stageline_cli.screen import Lines, Terminal

    console = Console()
    return Lines() if plain or not console.is_terminal else Terminal(console)


class _Show:
    """Between what is served, the screen and the user's signals."""

    def __init__(self, model: str, address: str, screen: Screen) -> None:
        self._model = model
        self._address = address
        self._screen = screen
        self._read = True
        self._ready = False
        self._suggestion: asyncio.Task[None] | None = None
        self._stop: Callable[[], None] | None = None
        self.killed = False

    def show(self, resource: Object) -> None:
        """Show the resource, and say when it becomes ready."""
        from stageline_cli.summary import is_ready

        self._print(lambda: self._screen.show(resource))
        ready = is_ready(resource)
        if ready and not self._ready:
            again = " again" if self._suggestion else ""
            self.say(f"{self._model} is ready{again} at {self._address}")
            self._suggestion = self._suggestion or asyncio.create_task(self._suggest())
        self._ready = ready

    def planned(self, record: Object) -> None:
        """Show the plan."""
        from rich.console import Console

        from stageline_api.plan import Plan
        from stageline_cli.plan import plan_summary, plan_table

        plan = Plan.model_validate(record["plan"])
        with io.StringIO() as text:
            Console(file=text, width=200).print(plan_table(plan))
            lines = [*text.getvalue().splitlines(), plan_summary(plan)]
        for line in lines:
            self.say(line.rstrip())

    def obey_signals(self, serving: Serving) -> None:
        """The first stop signal ends in order, the second at once."""
        self._stop = serving.stop

        def kill(since: float) -> None:
            if loop.time() - since > _ONE_SIGNAL_SECONDS:
                self.killed = True
                serving.kill()

        def stop() -> None:
            for number in _STOP_SIGNALS:
                loop.add_signal_handler(number, kill, loop.time())
            self.say("stopping: the router drains, then the stages go (Ctrl-C again kills)")
            serving.stop()

        loop = asyncio.get_running_loop()
        for number in _STOP_SIGNALS:
            loop.add_signal_handler(number, stop)

    def say(self, line: str) -> None:
        """Print a line that stays."""
        self._print(lambda: self._screen.say(line))

    async def _suggest(self) -> None:
        """Name a command that the model answers."""
        for _ in range(_ASKED):  # the model is there without it
            if metadata := await self._metadata():
                self.say(f"  try: {try_next(metadata, self._address)}")
                return
            await asyncio.sleep(_ASK_AGAIN_SECONDS)

    async def _metadata(self) -> Any:
        """What the router says of the model; None while it has not heard of it."""
        from stageline_cli.client import connect
        from stageline_cli.dialling import Server

        with suppress(Failure):
            async with connect(Server(self._address)) as client:
                return await client.metadata(self._model)
        return None

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


def try_next(metadata: Any, address: str) -> str:
    """A command that a model with these inputs and outputs (ModelMetadataResponse) answers."""
    from stageline_cli.dialling import DEFAULT_ADDRESS

    where = "" if address == DEFAULT_ADDRESS else f" --address {address}"
    inputs = [tensor.name for tensor in metadata.inputs]
    outputs = [tensor.name for tensor in metadata.outputs]
    if "text_output" in outputs:
        return f'stageline generate "The "{where}'
    if "embedding" in outputs and "text_input" in inputs:
        return f'stageline infer --text "A cat sat on the mat."{where}'
    given = " ".join(f"--input {name}=@{name}.npy" for name in inputs)
    return f"stageline infer {given}{where}"


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
