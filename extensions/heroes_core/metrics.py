"""Prometheus metrics of this process."""

from __future__ import annotations

from prometheus_client import REGISTRY, Counter, Histogram, generate_latest

REQUEST_SECONDS = Histogram(
    "heroes_request_seconds",
    "Time to answer a request, by operation and status.",
    ["operation", "status"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
ERRORS = Counter("heroes_errors_total", "Errors answered, by type.", ["type"])


def exposition() -> bytes:
    """All metrics in Prometheus's text format."""
    return generate_latest(REGISTRY)
