"""What an operator is told when it starts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RenderSettings:
    """What goes into the children beside the resource itself."""

    worker_image: str = "stageline-worker:latest"
    router_image: str = "stageline-router:latest"
    cluster_domain: str = "cluster.local"
    allow_host_path: bool = False
    """Whether file:// models may be mounted from the node."""
