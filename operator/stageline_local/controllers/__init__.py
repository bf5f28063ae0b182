"""What a cluster does by itself for those who use it: pods are placed, Deployments are kept at
their size, what nobody owns any more is collected. Clients of an API server, like any other."""

from stageline_local.controllers.collector import GarbageCollector
from stageline_local.controllers.deployer import DeploymentController
from stageline_local.controllers.scheduler import Scheduler

__all__ = ["DeploymentController", "GarbageCollector", "Scheduler"]
