"""`api.p50_ratio`: a page of one's own runs, read afresh, against a bare Jupyter Server extension.

Both servers are processes of their own. One connection each, kept alive; requests alternate, so that whatever else the
machine does hits both alike.
"""

from __future__ import annotations

import http.client
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench import Figure

ROWS, PAGE, REQUESTS, WARM_UP = 1000, 50, 1500, 200
PATH = f"/organization/workflow/instance?limit={PAGE}"


def run() -> Iterator[Figure]:
    """The ratio of the medians, and of the 99th percentiles."""
    with tempfile.TemporaryDirectory(prefix="heroes-bench-") as folder, _server("heroes", folder) as ours:
        body, _ = _get(ours)
        (Path(folder) / "answer.json").write_bytes(body)
        with _server("bare", folder) as peer:
            assert _get(peer)[0] == body, "the peer answers something else"
            own, other = _times(ours, peer)
    p50, p99 = statistics.median(own) / statistics.median(other), _p99(own) / _p99(other)
    told = f"bare jupyter_server extension: p50 {statistics.median(other) * 1e3:.2f} ms, p99 {_p99(other) * 1e3:.2f} ms"
    yield Figure("api.p50_ratio", p50, "ratio", 2.0, "lower", told, REQUESTS)
    yield Figure("api.p99_ratio", p99, "ratio", None, "lower", f"ours: p99 {_p99(own) * 1e3:.2f} ms", REQUESTS)
    yield Figure("api.p50_ms", statistics.median(own) * 1e3, "ms", None, "lower", "none", REQUESTS)


def _times(ours: http.client.HTTPConnection, peer: http.client.HTTPConnection) -> tuple[list[float], list[float]]:
    for _ in range(WARM_UP):
        _get(ours), _get(peer)
    pairs = [(_get(ours)[1], _get(peer)[1]) for _ in range(REQUESTS)]
    return [own for own, _ in pairs], [other for _, other in pairs]


def _get(connection: http.client.HTTPConnection) -> tuple[bytes, float]:
    began = time.perf_counter()
    connection.request("GET", PATH, headers={"Authorization": f"Bearer {connection.token}"})  # type: ignore[attr-defined]
    answer = connection.getresponse()
    body = answer.read()
    took = time.perf_counter() - began
    assert answer.status == 200, body
    return body, took


def _p99(times: list[float]) -> float:
    return sorted(times)[int(len(times) * 0.99)]


@contextmanager
def _server(kind: str, folder: str) -> Iterator[http.client.HTTPConnection]:
    """A server in a process of its own; it prints its port and its token once it listens."""
    argv = [sys.executable, "-m", "tests.bench._api_server", kind, folder]
    environment = {**os.environ, "JUPYTER_PLATFORM_DIRS": "1"}
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        port, token = process.stdout.readline().split()
        connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=60)
        connection.token = token  # type: ignore[attr-defined]
        try:
            yield connection
        finally:
            connection.close()
            process.kill()
