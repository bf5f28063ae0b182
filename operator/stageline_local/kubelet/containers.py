"""From a container of a pod to a process: pure but for the folders that it reads of."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from stageline_local.client import Object
from stageline_local.kubelet.addresses import HOST, Addresses
from stageline_local.kubelet.places import addressed, bound, located
from stageline_local.kubelet.refusals import ConfigError
from stageline_local.kubelet.sources import Sources
from stageline_local.kubelet.variables import environment, expand, field_value
from stageline_local.kubelet.volumes import mounted
from stageline_local.process import ProcessSpec
from stageline_local.restarts import Restart, RestartPolicy

GRACE_SECONDS = 30
_TERMINATION_LOG = "/dev/termination-log"
_PYTHON = ("python", "python3")


@dataclass(frozen=True, slots=True)
class Place:
    """Where the files of one pod are."""

    folder: Path
    """Its own, removed when it is gone."""
    logs: Path
    """Its containers' logs, kept until a pod of the same name comes."""

    @property
    def volumes(self) -> Path:
        """One folder in it for each volume that is not elsewhere."""
        return self.folder / "volumes"

    def termination_log(self, container: str) -> Path:
        """The file in which a container says why it ended."""
        return self.folder / f"{container}.termination"

    def log(self, container: str, *, previous: bool = False) -> Path:
        """What a container wrote in this life, or in the one before."""
        return self.logs / f"{container}{'.previous' if previous else ''}.log"


def pod_address(pod: Object, addresses: Addresses) -> str:
    """The pod's own: of its hostname and subdomain if it has both, else of no other pod."""
    metadata, spec = pod["metadata"], pod["spec"]
    if spec.get("hostname") and spec.get("subdomain"):
        return named_address(addresses, spec["hostname"], spec["subdomain"], metadata["namespace"])
    return addresses.of(metadata["uid"])


def named_address(addresses: Addresses, hostname: str, subdomain: str, namespace: str) -> str:
    """The address behind `<hostname>.<subdomain>.<namespace>.svc`, pod or no pod."""
    return addresses.of(f"{hostname}.{subdomain}.{namespace}")


def rewriter(addresses: Addresses, own: str) -> Callable[[str], str]:
    """What puts the pods' addresses into a text of the pod whose address is `own`."""

    def address_of(hostname: str, subdomain: str, namespace: str) -> str:
        return named_address(addresses, hostname, subdomain, namespace)

    return lambda text: bound(addressed(text, address_of), own)


def process_spec(
    pod: Object,
    container: Object,
    place: Place,
    folders: Mapping[str, Path],
    sources: Sources,
    addresses: Addresses,
    extra: Mapping[str, str],
    restart: RestartPolicy,
) -> ProcessSpec:
    """What to run; ConfigError says why nothing can be run.

    `folders` are the volumes' own, `extra` variables that the container may overrule.
    """
    name, spec = container["name"], pod["spec"]
    address = pod_address(pod, addresses)
    mounts = mounted(container, folders)
    mounts[container.get("terminationMessagePath") or _TERMINATION_LOG] = str(
        place.termination_log(name)
    )
    by_address = rewriter(addresses, address)

    def here(text: str) -> str:
        return located(by_address(text), mounts)

    variables = environment(
        container,
        pod["metadata"]["namespace"],
        lambda path: field_value(pod, address, HOST, path),
        sources,
    )
    words = [*(container.get("command") or ()), *(container.get("args") or ())]
    if not container.get("command"):
        raise ConfigError(
            f'container "{name}" has no command: images are not run here, so say what to run'
        )
    command = [here(expand(word, variables)) for word in words]
    if command[0] in _PYTHON:
        command[0] = sys.executable
    own = {"HOSTNAME": spec.get("hostname") or pod["metadata"]["name"]}
    return ProcessSpec(
        name=process_name(pod, name),
        command=tuple(command),
        log=place.log(name),
        previous_log=place.log(name, previous=True),
        env={**extra, **own, **{key: here(value) for key, value in variables.items()}},
        folder=Path(here(container["workingDir"])) if container.get("workingDir") else place.folder,
        grace_seconds=grace_seconds(pod),
        restart=replace(restart, when=Restart(spec.get("restartPolicy") or "Always")),
    )


def process_name(pod: Object, container: str) -> str:
    """What the runtime calls it."""
    return f"{pod['metadata']['uid']}/{container}"


def grace_seconds(pod: Object) -> int:
    """From SIGTERM to SIGKILL: as the deletion says, else as the pod says."""
    asked = pod["metadata"].get("deletionGracePeriodSeconds")
    if asked is None:
        asked = pod["spec"].get("terminationGracePeriodSeconds")
    return GRACE_SECONDS if asked is None else int(asked)
