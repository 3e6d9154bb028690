"""Write small clips as H.264; the same frames give the same bytes."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import IO

import av
import numpy as np
from av.bitstream import BitStreamFilterContext
from av.video.frame import VideoFrame

from cinetune.errors import InputError
from cinetune.files import writing
from cinetune.frames.decoding import REPEATABLE

# x264's AVX-512 code gives other bytes from run to run for small pictures; this level equals its plain C,
# which is also what it falls back to on other processors.
REPEATABLE_X264 = {"x264-params": "asm=SSE4.2"}


def encode(path: Path, frames: Iterable[np.ndarray], fps: int | Fraction) -> None:
    """Write uint8 RGB [height, width, 3] frames as H.264 MP4; the same frames give the same bytes.

    Raises InputError for no frames, frames of several sizes and odd sizes.
    """
    with writing(path) as file:
        _encode(file, frames, Fraction(fps))


def _encode(file: IO[bytes], frames: Iterable[np.ndarray], fps: Fraction) -> None:
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise InputError("a video needs at least one frame.")
    height, width = first.shape[:2]
    if height % 2 or width % 2:
        raise InputError(f"a video's width and height must be even, got {width} x {height}.")
    # Bit-exact mode and one thread: no dates, no names of programs, no race between threads in the file.
    with av.open(file, mode="w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = 1 / fps
        stream.codec_context.thread_count = 1
        stream.codec_context.gop_size = round(4 * fps)
        stream.options = {"crf": "30", "preset": "veryslow", "flags": "+bitexact"} | REPEATABLE_X264
        container.start_encoding()
        # The encoder describes itself and its settings in the first frame, 5 % of a clip of ten seconds.
        strip = BitStreamFilterContext("filter_units=remove_types=6", stream)
        for number, image in enumerate(itertools.chain([first], frames)):
            if image.shape != first.shape:
                raise InputError(f"a video's frames must have one size, got {first.shape} and {image.shape}.")
            frame = VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame = frame.reformat(format="yuv420p", interpolation=REPEATABLE, threads=1)
            frame.pts = number
            for packet in stream.encode(frame):
                container.mux(strip.filter(packet))
        for packet in stream.encode(None):
            container.mux(strip.filter(packet))
