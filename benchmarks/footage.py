"""Footage that costs a decoder what film costs: textured shots that pan, things that move, grain, hard cuts."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
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


def edited(kind: str, seconds: float, seed: int) -> Iterator[np.ndarray]:
    """The same with what an editor or a camera does to it: cuts, fades, flashes, fast motion or dim light."""
    speed = 4 if kind == "fast" else 1
    for number, image in enumerate(itertools.islice(frames(seconds * speed, seed), 0, None, speed)):
        if kind == "fades":
            # To black and back within a second, every three seconds.
            image = (image * min(1.0, abs((number / FPS) % 3 - 1.5) * 2)).astype(np.uint8)
        elif kind == "flashes" and number % 60 == 40:
            image = np.full_like(image, 245)
        elif kind == "dim":
            image = (image * 0.4 + 10).astype(np.uint8)
        yield image


def _texture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Noise whose strength falls with frequency, as in pictures of real things; float32 [height, width, 3]."""
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]
    fall = 1.0 / np.maximum(np.hypot(rows, columns), 1.0 / max(height, width)) ** 1.2
    channels = [np.fft.irfft2(np.fft.rfft2(rng.normal(size=(height, width))) * fall, (height, width)) for _ in range(3)]
    image = np.stack(channels, axis=-1)
    return (128 + 50 * (image - image.mean()) / image.std()).astype(np.float32)


def encode(path: Path, images: Iterable[np.ndarray], options: dict[str, str]) -> Path:
    """H.264 of frames of this footage's size and rate."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.options = options
        for image in images:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        output.mux(stream.encode(None))
    return path


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
