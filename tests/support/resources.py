"""A PipelineDeployment called llama as an API server has it, healthy unless told otherwise."""

from stageline_cli.summary import Object

GOOD = {
    "Ready": "True",
    "Reconciling": "False",
    "Stalled": "False",
    "Planned": "True",
    "StagesScheduled": "True",
    "ModelLoaded": "True",
    "PipelineConnected": "True",
    "RouterReady": "True",
}


def conditions(**changes: tuple[str, str, str]) -> list[Object]:
    """All as they should be but these: kind=(status, reason, message)."""
    return [
        dict(zip(("type", "status", "reason", "message"), (kind, *told), strict=True))
        for kind, status in (GOOD | {kind: told[0] for kind, told in changes.items()}).items()
        for told in [changes.get(kind, (status, "AllIsWell", "all is well"))]
    ]


def stage(number: int, **more: object) -> Object:
    """A stage of three layers that serves."""
    return {
        "pipeline": "llama-f00-0",
        "stage": number,
        "state": "Serving",
        "layers": f"{3 * number}-{3 * number + 2}",
        "bytesLoaded": 3 << 20,
        "bytesTotal": 3 << 20,
        "loads": 1,
        "computeMilliseconds": "1.2",
        "hopMilliseconds": "0.3",
        "transport": "grpc",
        "pod": f"llama-f00-0-{number}",
        "node": "local",
    } | more


def resource(**status: object) -> Object:
    """The whole object; fields of its status are replaced."""
    return {
        "metadata": {
            "name": "llama",
            "namespace": "default",
            "generation": 2,
            "creationTimestamp": "2026-11-24T11:57:00Z",
        },
        "spec": {"replicas": 1},
        "status": {
            "observedGeneration": 2,
            "pipelines": "1/1",
            "stageCount": 2,
            "updatedReplicas": 1,
            "plan": {"revision": "f00", "partition": [3, 3], "hash": "h", "memoryChecked": False},
            "conditions": conditions(),
            "stages": [stage(0), stage(1)],
        }
        | status,
    }
