"""Our frames are those that FFmpeg itself shows, on made files of many kinds."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.data


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="FFmpeg's command line is not installed")
def test_every_frame_is_the_one_that_ffmpeg_shows_at_that_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import parity

    outcomes = [(case, outcome) for case, outcome in parity.run() if outcome is not None]
    assert len(outcomes) >= 60
    assert [(case.kind, case.name, outcome) for case, outcome in outcomes if not outcome.is_right] == []
