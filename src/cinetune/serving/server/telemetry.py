"""Counts and latencies of a server as text in Prometheus' format."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping

LATENCY_EDGES_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Telemetry:
    """For one thread, that of the event loop."""

    def __init__(self) -> None:
        self._requests: Counter[int] = Counter()
        self._latencies = [0] * (len(LATENCY_EDGES_S) + 1)
        self._seconds = 0.0

    def count(self, status: int, seconds: float) -> None:
        """A request that has ended. Latencies are kept of those that were answered (status 200)."""
        self._requests[status] += 1
        if status == 200:
            self._latencies[bisect_left(LATENCY_EDGES_S, seconds)] += 1
            self._seconds += seconds

    def page(self, gauges: Mapping[str, float], totals: Mapping[str, int]) -> str:
        """What /metrics shows; `gauges` and `totals` come from elsewhere and get the prefix `cinetune_`."""
        lines = ["# TYPE cinetune_requests_total counter"]
        lines += [f'cinetune_requests_total{{status="{status}"}} {n}' for status, n in sorted(self._requests.items())]
        lines.append("# TYPE cinetune_request_seconds histogram")
        reached = 0
        for edge, count in zip((*LATENCY_EDGES_S, "+Inf"), self._latencies, strict=True):
            reached += count
            lines.append(f'cinetune_request_seconds_bucket{{le="{edge}"}} {reached}')
        lines += [f"cinetune_request_seconds_sum {self._seconds:.6f}", f"cinetune_request_seconds_count {reached}"]
        for name, value in sorted(gauges.items()):
            lines += [f"# TYPE cinetune_{name} gauge", f"cinetune_{name} {value:.15g}"]
        for name, value in sorted(totals.items()):
            lines += [f"# TYPE cinetune_{name}_total counter", f"cinetune_{name}_total {value}"]
        return "\n".join(lines) + "\n"
