"""Footage that costs a decoder what film costs: textured shots that pan, things that move, grain, hard cuts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from av.video.frame import PictureType

HEIGHT, WIDTH, FPS = 360, 640, 24
SHOT_SECONDS = (2.0, 6.0)
MARGIN = 64
GRAIN = 4.0


def frames(seconds: float, seed: int) -> Iterator[np.ndarray]:
    """uint8 RGB [360, 640, 3] at 24 frames a second."""
    rng = np.random.default_rng(seed)
    grain = rng.normal(0, GRAIN, (8, HEIGHT, WIDTH, 1)).astype(np.float32)
    left = round(seconds * FPS)
    while left:
        length = min(left, round(rng.uniform(*SHOT_SECONDS) * FPS))
        scene, figure = _texture(rng, HEIGHT + MARGIN, WIDTH + MARGIN), _texture(rng, 160, 90)
        pan = rng.uniform(-1.0, 1.0, 2) * MARGIN / 2
        start, step = rng.uniform(20, 180, 2), rng.uniform(-2.0, 2.0, 2)
        for number in range(length):
            top, side = (MARGIN / 2 + pan * (number / length - 0.5)).astype(int)
            image = scene[top : top + HEIGHT, side : side + WIDTH].copy()
            y, x = np.clip(start + step * number, 0, (HEIGHT - 160, WIDTH - 90)).astype(int)
            image[y : y + 160, x : x + 90] = figure
            yield np.clip(image + grain[number % 8], 0, 255).astype(np.uint8)
        left -= length


def _texture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Noise whose strength falls with frequency, as in pictures of real things; float32 [height, width, 3]."""
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]
    fall = 1.0 / np.maximum(np.hypot(rows, columns), 1.0 / max(height, width)) ** 1.2
    channels = [np.fft.irfft2(np.fft.rfft2(rng.normal(size=(height, width))) * fall, (height, width)) for _ in range(3)]
    image = np.stack(channels, axis=-1)
    return (128 + 50 * (image - image.mean()) / image.std()).astype(np.float32)


def write(path: Path, seconds: float = 160.0, keyframe_s: float = 5.0, seed: int = 0) -> Path:
    """H.264 as a video site would offer it: reference frames in both directions, a keyframe every few seconds."""
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as output:
        stream = output.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        every = str(round(keyframe_s * FPS))
        stream.options = {
            "preset": "fast",
            "crf": "26",
            "g": every,
            "forced-idr": "1",
            "x264-params": "scenecut=0:bframes=3:ref=3",
        }
        for number, image in enumerate(frames(seconds, seed)):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            # Half a distance in, so that evenly chosen moments do not fall on keyframes by chance.
            if number == round(keyframe_s * FPS / 2):
                frame.pict_type = PictureType.I
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path
