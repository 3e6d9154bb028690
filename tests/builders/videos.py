"""Videos whose frames tell their number, drawn and written on the spot."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from cinetune.frames.decoder import Decoder
from cinetune.frames.limits import Limits, VideoError
from cinetune.frames.sampling import FrameSettings

LIMITS = Limits(timeout_s=20.0, max_megapixels=9.0, max_duration_s=900.0, memory_mb=2048, max_frames=5000)
UNIFORM = FrameSettings("uniform", num_frames=8, size=64, cut_threshold=30.0, min_shot_frames=8)
SHOTS = FrameSettings("shots", num_frames=8, size=64, cut_threshold=30.0, min_shot_frames=8)


def numbered(count: int, side: int = 64) -> list[np.ndarray]:
    """Frames that carry their number as eight black or white squares."""
    frames = []
    for number in range(count):
        bits = [(number >> bit & 1) * 255 for bit in range(8)]
        squares = np.array(bits, dtype=np.uint8).reshape(2, 4)
        frames.append(np.repeat(squares.repeat(side // 2, 0).repeat(side // 4, 1)[:, :, None], 3, axis=2))
    return frames


def numbers(frames: np.ndarray) -> list[int]:
    """What `numbered` wrote, read back from fitted frames."""
    side = frames.shape[1]
    found = []
    for frame in frames:
        squares = frame.reshape(2, side // 2, 4, side // 4, 3).mean(axis=(1, 3, 4))
        assert ((squares < 60) | (squares > 195)).all(), "a mixture of frames"
        found.append(sum(1 << bit for bit, level in enumerate(squares.ravel()) if level > 128))
    return found


def film(shot_lengths: list[int], height: int = 120, width: int = 160) -> Iterator[np.ndarray]:
    """Shots of coloured patches with a square that moves."""
    rng = np.random.default_rng(0)
    for length in shot_lengths:
        patches = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        background = patches.repeat(height // 6, 0).repeat(width // 8, 1)
        for step in range(length):
            frame = background.copy()
            frame[20:40, 2 * step : 2 * step + 20] = (250, 30, 30)
            yield frame


@contextmanager
def _same_scheduling() -> Iterator[None]:
    """SVT-AV1 makes root's calling thread a real-time one; threads of torch that inherit it starve each other."""
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    yield
    os.sched_setscheduler(0, policy, parameters)


def write(
    path: Path,
    images: list[np.ndarray],
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    container: str | None = None,
    stamps: list[int] | None = None,
    rate: int = 12,
    rotation: int = 0,
    aspect: Fraction | None = None,
    container_options: dict[str, str] | None = None,
    **options: Any,
) -> Path:
    """A video by any codec, with timestamps in 1/1000 s where `stamps` are given."""
    with _same_scheduling(), av.open(str(path), "w", format=container, options=container_options or {}) as output:
        stream = output.add_stream(codec, rate=rate)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = pix_fmt
        stream.options = {name: str(value) for name, value in options.items()}
        unit = Fraction(1, 1000) if stamps else Fraction(1, rate)
        stream.codec_context.time_base = unit
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        if rotation:
            stream.set_display_rotation(rotation)
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = stamps[number] if stamps else number
            frame.time_base = unit
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def restamped(source: Path, path: Path, stamp: Callable[[int], int]) -> Path:
    """The packets of a video, each shown at another moment (ms) and decoded half a second before its own."""
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.size:
                unit = packet.time_base * 1000
                packet.pts = round(stamp(round(packet.pts * unit)) / unit)
                packet.dts = min(packet.dts - round(500 / unit), packet.pts)
                packet.stream = stream
                new.mux(packet)
    return path


def reason(decoder: Decoder, source: Path | bytes, settings: FrameSettings = SHOTS) -> tuple[str, str]:
    """Status and text of the error that reading ends in, checked to be one sentence without surroundings."""
    with pytest.raises(VideoError) as caught:
        decoder.read(source, settings, name="clip-7")
    text = str(caught.value)
    assert text.startswith("video 'clip-7' ") and text.endswith(".") and "\n" not in text
    if isinstance(source, Path):
        assert str(source) not in text
    return caught.value.status, text


def assert_still_works(decoder: Decoder, good: Path) -> None:
    assert numbers(decoder.read(good, UNIFORM).frames) == [6 + 12 * i for i in range(8)]
