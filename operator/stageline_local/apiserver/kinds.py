"""The kinds of objects that the server keeps, and what is particular to each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

Object = dict[str, Any]
"""A Kubernetes object as JSON. Once stored it is never changed, only replaced."""

_ALL: Final = ("all",)


@dataclass(frozen=True, slots=True)
class Kind:
    """One resource of one API group."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    counts_generations: bool = False
    """Whether metadata.generation counts the changes of the spec."""
    custom: bool = False
    """Whether it comes from a CustomResourceDefinition."""

    @property
    def api_version(self) -> str:
        """`v1` or `apps/v1`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def resource(self) -> str:
        """As in sentences: `pods` or `deployments.apps`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def root(self) -> str:
        """Where the group lives in URLs, without a slash at either end."""
        return f"apis/{self.api_version}" if self.group else f"api/{self.version}"

    @property
    def store(self) -> tuple[str, str]:
        """Where objects are kept: events of both groups are the same objects."""
        return ("", "events") if self.plural == "events" else (self.group, self.plural)

    @property
    def has_status(self) -> bool:
        """Whether status is written by a subresource of its own, and by nothing else."""
        return "status" in self.subresources


BUILT_IN: Final = (
    Kind("", "v1", "namespaces", "Namespace", False, ("ns",), (), ("status", "finalize")),
    Kind("", "v1", "nodes", "Node", False, ("no",), (), ("status",)),
    Kind(
        *("", "v1", "pods", "Pod", True, ("po",), _ALL),
        ("status", "log", "eviction", "binding"),
        counts_generations=True,
    ),
    Kind("", "v1", "services", "Service", True, ("svc",), _ALL, ("status",)),
    Kind("", "v1", "configmaps", "ConfigMap", True, ("cm",)),
    Kind("", "v1", "secrets", "Secret"),
    Kind("", "v1", "serviceaccounts", "ServiceAccount", True, ("sa",)),
    Kind("", "v1", "events", "Event", True, ("ev",)),
    Kind("events.k8s.io", "v1", "events", "Event", True, ("ev",)),
    Kind(
        *("apps", "v1", "deployments", "Deployment", True, ("deploy",), _ALL),
        ("status", "scale"),
        counts_generations=True,
    ),
    Kind(
        *("apps", "v1", "replicasets", "ReplicaSet", True, ("rs",), _ALL),
        ("status", "scale"),
        counts_generations=True,
    ),
    Kind("apps", "v1", "controllerrevisions", "ControllerRevision"),
    Kind(
        *("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", True, ("pdb",), ()),
        ("status",),
        counts_generations=True,
    ),
    Kind("coordination.k8s.io", "v1", "leases", "Lease"),
    Kind(
        *("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition"),
        *(False, ("crd", "crds"), ("api-extensions",), ("status",)),
        counts_generations=True,
    ),
)


def custom_kinds(crd: Object) -> Iterable[Kind]:
    """The kinds that a CustomResourceDefinition declares, one for each served version."""
    spec, names = crd["spec"], crd["spec"]["names"]
    for version in spec["versions"]:
        if version["served"]:
            yield Kind(
                spec["group"],
                version["name"],
                names["plural"],
                names["kind"],
                spec["scope"] == "Namespaced",
                tuple(names.get("shortNames", ())),
                tuple(names.get("categories", ())),
                tuple(version.get("subresources", {})),
                counts_generations=True,
                custom=True,
            )
