"""The kinds of object that the operator owns, and where the API server keeps them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from stageline_api.crd import PLURAL
from stageline_api.resource import API_VERSION
from stageline_api.resource import KIND as DEPLOYMENT_KIND

Object = dict[str, Any]
"""A Kubernetes object as JSON."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of namespaced object."""

    api_version: str
    kind: str
    plural: str

    def path(self, namespace: str, name: str = "") -> str:
        """Where the objects of a namespace are, or the one with this name."""
        root = "/apis/" if "/" in self.api_version else "/api/"
        folder = f"{root}{self.api_version}/namespaces/{namespace}/{self.plural}"
        return f"{folder}/{name}" if name else folder


PIPELINE_DEPLOYMENT: Final = Kind(API_VERSION, DEPLOYMENT_KIND, PLURAL)
POD: Final = Kind("v1", "Pod", "pods")
SERVICE: Final = Kind("v1", "Service", "services")
CONFIG_MAP: Final = Kind("v1", "ConfigMap", "configmaps")
SERVICE_ACCOUNT: Final = Kind("v1", "ServiceAccount", "serviceaccounts")
DEPLOYMENT: Final = Kind("apps/v1", "Deployment", "deployments")
CONTROLLER_REVISION: Final = Kind("apps/v1", "ControllerRevision", "controllerrevisions")
DISRUPTION_BUDGET: Final = Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
SECRET: Final = Kind("v1", "Secret", "secrets")
"""Read by name: whoever may list or watch Secrets may read all that there are."""
LEASE: Final = Kind("coordination.k8s.io/v1", "Lease", "leases")
NODE: Final = Kind("v1", "Node", "nodes")
"""Listed, and no more: it is in no namespace."""
EVENT: Final = Kind("events.k8s.io/v1", "Event", "events")

CHILDREN: Final = (
    POD, SERVICE, CONFIG_MAP, SERVICE_ACCOUNT, DEPLOYMENT, CONTROLLER_REVISION, DISRUPTION_BUDGET,
)  # fmt: skip
"""Every kind of child that is watched, all labelled with their owner."""


def kind_of(obj: Object) -> Kind:
    """The kind of an object that the operator reads or writes; KeyError for any other."""
    return _BY_NAME[obj["apiVersion"], obj["kind"]]


_BY_NAME = {
    (kind.api_version, kind.kind): kind
    for kind in (PIPELINE_DEPLOYMENT, *CHILDREN, SECRET, LEASE, NODE)
}
