"""This machine as a place for a model: what must be here, and where its documents and logs go."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from stageline_cli.failure import Failure

if TYPE_CHECKING:
    from stageline_api.resource import PipelineDeployment
    from stageline_local.statedir import StateDir

_NEEDS = ("aiohttp", "jsonpatch", "kopf", "kubernetes", "tokenizers", "torch", "transformers")


@contextmanager
def refusals() -> Iterator[None]:
    """Every way in which a manifest or this machine says no, as the command's one error."""
    from stageline_api.manifest import ManifestError
    from stageline_local.ports import PortTaken
    from stageline_local.statedir import StateDirError

    try:
        yield
    except (ManifestError, PortTaken, StateDirError) as error:
        raise Failure(str(error)) from None


@contextmanager
def prepared(deployment: PipelineDeployment, port: int, folder: Path) -> Iterator[StateDir]:
    """The state of a model that may be served here on that port, for this process alone.

    Failure when it cannot be, and when there turns out to be no use.
    """
    _require_packages()
    from stageline_cli.serving import GaveUp
    from stageline_local.ports import require_free
    from stageline_local.statedir import StateDir

    name = deployment.metadata.name
    if deployment.spec.replicas == 0:
        raise Failure(f"{name} has 0 replicas, so nothing to start: set spec.replicas to 1")
    require_free(port)
    with StateDir(folder, name) as state:
        _require_model(deployment)
        _log_to(state.log("cluster"))
        try:
            yield state
        except GaveUp as error:
            raise Failure(f"{error}\nLogs are in {state.logs}.") from None


def _require_packages() -> None:
    missing = [name for name in _NEEDS if find_spec(name) is None]
    if missing:
        raise Failure(
            f"operator, router or worker cannot run here ({', '.join(missing)} not installed): "
            "pip install 'stageline[local]'"
        )


def _require_model(deployment: PipelineDeployment) -> None:
    """What no pod of this machine could mount, and nobody is likely to bring."""
    name, uri = deployment.metadata.name, deployment.spec.model.uri
    if uri.startswith("pvc://"):
        raise Failure(
            f"spec.model.uri {uri} of {name} is a volume of a real cluster: name a folder of this "
            "machine, file:///folder"
        )
    folder = Path(uri.removeprefix("file://"))
    if folder.is_absolute() and not folder.is_dir():
        raise Failure(f"{folder}, the model of {name}, is no folder here")


def _log_to(path: Path) -> None:
    """What the cluster in this process has to say is for whoever looks for a bug."""
    form = "%(asctime)s %(levelname)s %(name)s: %(message)s"
    logging.basicConfig(filename=path, filemode="w", level=logging.INFO, format=form, force=True)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
