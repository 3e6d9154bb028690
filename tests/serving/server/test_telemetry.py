"""Counts and latencies as Prometheus reads them."""

from __future__ import annotations

import pytest

from cinetune.serving.server.telemetry import Telemetry

pytestmark = pytest.mark.serving


def test_counts_and_latencies_are_shown_as_prometheus_reads_them() -> None:
    telemetry = Telemetry()
    for seconds in (0.005, 0.07, 200.0):
        telemetry.count(200, seconds)
    telemetry.count(503, 9.0)
    lines = telemetry.page({"ready": 1}, {"packs": 2}).splitlines()
    assert 'cinetune_requests_total{status="200"} 3' in lines and 'cinetune_requests_total{status="503"} 1' in lines
    assert 'cinetune_request_seconds_bucket{le="0.01"} 1' in lines
    assert 'cinetune_request_seconds_bucket{le="60.0"} 2' in lines
    assert 'cinetune_request_seconds_bucket{le="+Inf"} 3' in lines
    assert "cinetune_request_seconds_count 3" in lines and "cinetune_packs_total 2" in lines
