"""Cuts found by looking at a part of the frames, against those of every frame and of PySceneDetect itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from scenedetect import FrameTimecode
from scenedetect.detector import FlashFilter
from scenedetect.detectors import ContentDetector

from builders.videos import LIMITS, write
from cinetune.frames.sampling import FrameSettings
from cinetune.frames.video import cuts
from cinetune.frames.video.playhead import open_video
from cinetune.frames.video.timeline import read_timeline

pytestmark = pytest.mark.data

SETTINGS = FrameSettings("shots", num_frames=8, size=64, cut_threshold=27.0, min_shot_frames=8)


def shots(kind: str) -> Iterator[np.ndarray]:
    """Shots of smooth patches that pan, with a flash, a dip to black or dim light; uint8 RGB [192, 352, 3]."""
    rng = np.random.default_rng(1)
    number = 0
    for length in (21, 30, 3, 40, 34):
        scene = rng.integers(0, 256, (12, 40, 3), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
        for step in range(length):
            image = scene[:, step : step + 352].astype(float)
            if kind == "flash" and number % 40 == 33:
                image[:] = 250
            if kind == "dip":
                image *= min(1.0, abs(number % 40 - 20) / 8)
            yield (image * (0.4 if kind == "dim" else 1.0)).astype(np.uint8)
            number += 1


ENCODINGS = {
    "keyframes at cuts": {"preset": "veryfast"},
    "no keyframes at cuts": {"preset": "veryfast", "x264-params": "scenecut=0:keyint=30:bframes=3"},
    "many B-frames": {"preset": "fast", "x264-params": "scenecut=0:bframes=8:b-adapt=0:keyint=250"},
    "no B-frames": {"preset": "veryfast", "x264-params": "bframes=0:keyint=48"},
}


@pytest.mark.parametrize("encoding", list(ENCODINGS))
@pytest.mark.parametrize("kind", ["plain", "flash", "dip", "dim"])
def test_a_rough_look_finds_the_cuts_of_every_frame(tmp_path: Path, kind: str, encoding: str) -> None:
    path = write(tmp_path / "clip.mp4", list(shots(kind)), rate=24, **ENCODINGS[encoding])
    with path.open("rb", buffering=0) as file:
        opened = open_video(file, LIMITS)
        timeline = read_timeline(*opened, LIMITS)
        everything = 0.0, timeline.duration_s
        expected = cuts.find_cuts_in_all(file, timeline, SETTINGS, LIMITS, *everything)
        assert cuts.find_cuts(file, timeline, SETTINGS, LIMITS, *everything) == expected
        assert len(expected) >= 3
        assert len(cuts.rough_scores(file, timeline, LIMITS)) > 0


def test_every_frame_gives_the_cuts_of_pyscenedetect(tmp_path: Path) -> None:
    path = write(tmp_path / "clip.mp4", list(shots("flash")), rate=24)
    with path.open("rb", buffering=0) as file:
        opened = open_video(file, LIMITS)
        timeline = read_timeline(*opened, LIMITS)
        found = cuts.find_cuts_in_all(file, timeline, SETTINGS, LIMITS, 0.0, timeline.duration_s)
        detector = ContentDetector(threshold=27.0, min_scene_len=8, filter_mode=FlashFilter.Mode.SUPPRESS)
        expected = []
        container, stream = open_video(file, LIMITS)
        for number, frame in enumerate(container.decode(stream)):
            small = frame.reformat(160, 87, format="bgr24", interpolation="AREA", threads=1).to_ndarray()
            expected += [cut.frame_num / 24 for cut in detector.process_frame(FrameTimecode(number, fps=24.0), small)]
    assert found == pytest.approx(expected) and len(found) >= 4
