"""What Prometheus is told, from a registry of the operator's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

Gauges = Callable[[], dict[str, float]]
"""The present values, by name without the prefix."""

_GAUGES: Final = {
    "queue_depth": "Resources that wait to be reconciled.",
    "queue_oldest_seconds": "How long the oldest of them has waited.",
    "reconcile_in_flight": "Resources that are being reconciled.",
    "reconcile_longest_seconds": "How long the longest of these has taken until now.",
    "report_streams": "Pipelines whose leader is heard.",
    "crd_missing_fields": "Fields of the resource that the cluster's CRD is too old to keep.",
    "namespaces_elsewhere": "Namespaces that are left to operators of their own.",
    "resources": "PipelineDeployments that exist and are served by this operator.",
    "resources_ready": "Those of them whose condition Ready is True.",
}


class Metrics:
    """Counted as things happen; gauges are read when Prometheus asks."""

    def __init__(self) -> None:
        self.gauges: Gauges = dict
        self._registry = CollectorRegistry()
        self._registry.register(_Gauges(self))
        self._reconciles = Counter(
            "stageline_reconcile", "Reconciles, by how they ended.", ["result"],
            registry=self._registry,
        )  # fmt: skip
        self._seconds = Histogram(
            "stageline_reconcile_duration_seconds", "Duration of a reconcile.",
            buckets=_BUCKETS, registry=self._registry,
        )  # fmt: skip
        self._errors = Counter(
            "stageline_reconcile_errors", "Reconciles that ended in a bug.",
            registry=self._registry,
        )  # fmt: skip
        self._requests = Counter(
            "stageline_api_requests", "Requests to the API server; code 0: no answer.",
            ["verb", "kind", "code"], registry=self._registry,
        )  # fmt: skip

    def reconciled(self, result: str, seconds: float) -> None:
        """One reconcile ended: done, retry or error."""
        self._reconciles.labels(result).inc()
        self._seconds.observe(seconds)
        if result == "error":
            self._errors.inc()

    def requested(self, verb: str, kind: str, code: int) -> None:
        """One request to the API server was answered, or was not."""
        self._requests.labels(verb, kind, str(code)).inc()

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self._registry)


class _Gauges(Collector):
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        for name, value in self._metrics.gauges().items():
            yield GaugeMetricFamily(f"stageline_{name}", _GAUGES[name], value=value)
