"""What one clip may cost at most, and why a video is refused."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cinetune.frames.sampling import ClipError

# A decoding process starts without pydantic.
if TYPE_CHECKING:
    from cinetune.params import FramesParams

# What ended because of the machine, not of the video: another attempt may go well.
PASSING = ("stalled", "killed", "io_error")
# Above this rate a container is not a film but an attempt to be one.
MAX_FRAMES_PER_SECOND = 120
# Processor time that a clip may take beyond timeout_s; 4K of ten bits at 24 frames/s takes about 0.25.
CPU_S_PER_MEGAPIXEL_S = 1.0
# Of which only a part is looked at.
MAX_FILM_S = 6 * 3600.0


@dataclass(frozen=True)
class Limits:
    """What one clip may cost at most.

    Of processor time it is `timeout_s`, and `cpu_s_per_megapixel_s` for each second of each megapixel of its picture.
    """

    timeout_s: float
    max_megapixels: float
    max_duration_s: float
    memory_mb: int
    max_frames: int
    cpu_s_per_megapixel_s: float = 0.0

    @classmethod
    def of(cls, params: FramesParams) -> Limits:
        return cls(
            timeout_s=params.timeout_s,
            max_megapixels=params.max_megapixels,
            max_duration_s=params.max_duration_s,
            memory_mb=params.memory_mb,
            max_frames=math.ceil(params.max_duration_s * MAX_FRAMES_PER_SECOND),
            cpu_s_per_megapixel_s=CPU_S_PER_MEGAPIXEL_S,
        )

    def processor_s(self, width: int, height: int, duration_s: float) -> float:
        """Processor time that a clip of this size may take."""
        return self.timeout_s + self.cpu_s_per_megapixel_s * width * height / 1e6 * duration_s


class VideoError(ClipError):
    """A video that cannot be used.

    `status` is one of missing, unreadable, not_a_video, broken, too_large, too_long, timeout, out_of_memory or of
    PASSING.
    """

    @property
    def is_passing(self) -> bool:
        return self.status in PASSING


class Refusal(Exception):
    """A status, and what is wrong as the end of a sentence that begins with the video's name."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def of_film(limits: Limits) -> Limits:
    """The limits of a film of which only a part is looked at."""
    return replace(limits, max_duration_s=MAX_FILM_S, max_frames=math.ceil(MAX_FILM_S * MAX_FRAMES_PER_SECOND))


def check_part(part: tuple[float, float], duration_s: float, limits: Limits) -> tuple[float, float]:
    """Start and end of a part in s, within the video. Raises Refusal where nothing lies between them or too much."""
    start, end = part[0], min(part[1] or duration_s, duration_s)
    if start >= end:
        raise Refusal("too_long", f"lasts {duration_s:.1f} s: nothing lies between {start:g} s and {end:g} s")
    check_duration(end - start, limits)
    return start, end


def check_size(width: int, height: int, limits: Limits) -> None:
    if width * height > limits.max_megapixels * 1e6:
        raise Refusal(
            "too_large",
            f"has frames of {width} x {height} pixels, above the limit of {limits.max_megapixels:g} "
            "megapixels: scale it down or raise frames.max_megapixels",
        )


def check_duration(duration_s: float, limits: Limits) -> None:
    if duration_s > limits.max_duration_s:
        raise Refusal(
            "too_long",
            f"lasts {duration_s:.0f} s, above the limit of {limits.max_duration_s:g} s: "
            "cut it or raise frames.max_duration_s",
        )
