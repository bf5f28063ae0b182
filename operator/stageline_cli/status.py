"""`stageline status`: what runs, and what is wrong with it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stageline_cli.failure import Failure
from stageline_cli.looking import DEFAULT_STATE_DIR, Kubeconfig, Namespace, StateDir, chosen_access

if TYPE_CHECKING:
    from stageline_cli.apiserver import ApiReader

Object = dict[str, Any]

_BETWEEN_LOOKS_SECONDS = 0.5
_AGE = re.compile(r"\b(\d+[smhd]){1,2}\b *")


class Output(StrEnum):
    """How the resource is printed."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


def status(
    name: Annotated[
        str | None, typer.Argument(help="Name of the PipelineDeployment; all if none.")
    ] = None,
    namespace: Namespace = None,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    kubeconfig: Kubeconfig = None,
    context: Annotated[
        str | None, typer.Option(help="Look at the cluster of this context of the kubeconfig.")
    ] = None,
    server: Annotated[
        str | None, typer.Option(help="Look at this API server, for example http://127.0.0.1:8080.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Print again on change.")] = False,
    output: Annotated[
        Output, typer.Option("--output", "-o", help="The object itself, as JSON or YAML.")
    ] = Output.TABLE,
) -> None:
    """Show what a PipelineDeployment is: conditions, plan, stages and events.

    Without --kubeconfig, --context or --server it looks at the `stageline up` that runs from the
    state folder, and if there is none at the cluster that kubectl would take. As `kubectl stageline
    status` it looks at the latter at once.

    \b
    Examples:
      stageline status
      stageline status llama --watch
      kubectl stageline status llama -n models -o yaml
    """
    from stageline_cli.apiserver import ApiReader

    access = chosen_access(name, state_dir, kubeconfig, context, server)
    if namespace:
        access = replace(access, namespace=namespace)
    place = _Place(ApiReader(access), access.namespace, name)
    try:
        for text in _texts(place, output, watch=watch):
            typer.echo(text)
    except KeyboardInterrupt:
        raise typer.Exit from None


@dataclass(frozen=True, slots=True)
class _Place:
    """One resource, or all of a namespace."""

    reader: ApiReader
    namespace: str
    name: str | None

    def read(self) -> tuple[list[Object], str]:
        """The resources that are there, and the version of what was read."""
        from stageline_cli.apiserver import NotFoundError

        query = {"fieldSelector": f"metadata.name={self.name}"} if self.name else {}
        try:
            found = self.reader.get(self._path(), **query)
        except NotFoundError:
            raise Failure(
                "this cluster does not know PipelineDeployments: install the operator first"
            ) from None
        return found.get("items") or [], found["metadata"].get("resourceVersion", "")

    def changes(self, version: str) -> Iterator[Object]:
        """Events of these resources."""
        query = {"fieldSelector": f"metadata.name={self.name}"} if self.name else {}
        return self.reader.watch(self._path(), version, **query)

    def events(self, resource: Object) -> list[Object]:
        """What happened to a resource of ours; nothing where events may not be read."""
        uid = resource["metadata"].get("uid", "")
        path = f"/apis/events.k8s.io/v1/namespaces/{self.namespace}/events"
        try:
            found = self.reader.get(path, fieldSelector=f"regarding.uid={uid}")
        except Failure:
            return []
        return found.get("items") or []

    def nothing(self) -> Failure:
        """The sentence that it is not there."""
        what = f"no PipelineDeployment {self.name}" if self.name else "no PipelineDeployment"
        return Failure(f"there is {what} in namespace {self.namespace}")

    def _path(self) -> str:
        from stageline_api.crd import PLURAL
        from stageline_api.resource import API_VERSION

        return f"/apis/{API_VERSION}/namespaces/{self.namespace}/{PLURAL}"


def _texts(place: _Place, output: Output, *, watch: bool) -> Iterator[str]:
    """What is to be printed now, and with `watch` each time that it reads differently."""
    last = ""
    while True:
        resources, version = place.read()
        if not resources and not watch:
            raise place.nothing()
        text = _text(place, resources, output) if resources else str(place.nothing())
        if _timeless(text) != _timeless(last):
            yield text + "\n" if watch else text
            last = text
        if not watch:
            return
        began = time.monotonic()
        next(place.changes(version), None)
        # Changes come in bursts; one look at the end of a burst shows them all.
        time.sleep(max(0.0, _BETWEEN_LOOKS_SECONDS - (time.monotonic() - began)))


def _text(place: _Place, resources: list[Object], output: Output) -> str:
    from stageline_cli.summary import headlines, summary

    if output is not Output.TABLE:
        return _data(resources, output, alone=place.name is not None)
    now = datetime.now(UTC)
    if len(resources) == 1:
        return summary(resources[0], place.events(resources[0]), now)
    return "\n".join(headlines(resources, now))


def _data(resources: list[Object], output: Output, *, alone: bool) -> str:
    import yaml

    from stageline_api.resource import API_VERSION, KIND

    # A list says the kind once, for all of its items.
    items: list[Object] = [{"apiVersion": API_VERSION, "kind": KIND, **item} for item in resources]
    for item in items:
        item["metadata"].pop("managedFields", None)
    data = items[0] if alone else {"apiVersion": "v1", "kind": "List", "items": items}
    if output is Output.JSON:
        return json.dumps(data, indent=2)
    return str(yaml.safe_dump(data, sort_keys=False)).rstrip()


def _timeless(text: str) -> str:
    """Without ages, which change while nothing happens."""
    return _AGE.sub("", text)
