"""What a video may cost at most."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from builders.processes import children
from builders.videos import UNIFORM, numbered, reason, write
from cinetune.frames.decoder import Decoder
from cinetune.frames.limits import Limits
from cinetune.params import load

pytestmark = pytest.mark.data


@pytest.mark.slow
def test_a_hundred_thousand_frames_and_a_bomb_stay_within_memory(tmp_path: Path) -> None:
    bomb = write(tmp_path / "bomb.mp4", [np.zeros((4320, 7680, 3), np.uint8)] * 2, preset="ultrafast")
    blank = [np.zeros((16, 16, 3), np.uint8)] * 100_000
    long = write(tmp_path / "long.mp4", blank, preset="ultrafast", rate=120)
    assert bomb.stat().st_size < 200_000
    before = children()
    with Decoder(Limits(60.0, 9.0, 900.0, 2048, 108_000)) as decoder:
        assert reason(decoder, bomb)[0] == "too_large"
        assert decoder.read(long, UNIFORM).duration_s == pytest.approx(833.3, abs=0.1)
        (child,) = children() - before
        [peak] = [line for line in Path(f"/proc/{child}/status").read_text().splitlines() if "VmHWM" in line]
        assert int(peak.split()[1]) < 500_000


def test_a_header_that_promises_hours_is_refused(decoder: Decoder, tmp_path: Path) -> None:
    content = write(tmp_path / "clip.mkv", numbered(96)).read_bytes()
    place = content.index(b"\x44\x89\x88") + 3
    for seconds, expected in ((36_000, "too_long"), (600, "broken")):
        promising = content[:place] + struct.pack(">d", seconds * 1000.0) + content[place + 8 :]
        status, text = reason(decoder, promising)
        assert status == expected and f"{seconds}" in text


def test_what_is_too_long_is_refused(good: Path) -> None:
    with Decoder(Limits(20.0, 9.0, 5.0, 2048, 5000)) as decoder:
        assert reason(decoder, good)[0] == "too_long"
    with Decoder(Limits(20.0, 9.0, 900.0, 2048, 50)) as decoder:
        assert "more than 50 frames" in reason(decoder, good)[1]


def test_a_huge_picture_is_refused_by_its_header(decoder: Decoder, tmp_path: Path) -> None:
    image = np.zeros((2400, 4096, 3), dtype=np.uint8)
    path = write(tmp_path / "bomb.mp4", [image] * 2, preset="ultrafast")
    status, text = reason(decoder, path)
    assert status == "too_large" and "4096 x 2400" in text and "frames.max_megapixels" in text


def test_limits_come_from_the_frames_section_of_the_params() -> None:
    params = load().frames
    limits = Limits.of(params)
    assert limits.timeout_s == params.timeout_s and limits.memory_mb == params.memory_mb
    assert limits.max_frames >= 60 * params.max_duration_s
    # 160 s of 4K in ten bits took 308 s.
    assert limits.processor_s(3840, 2160, 160.0) > 2 * 308
