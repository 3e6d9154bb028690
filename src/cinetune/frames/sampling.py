"""Which moments of a clip are looked at, and how a picture becomes a model's input."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from cinetune.errors import InputError
from cinetune.files import text_digest

# A decoding process starts without pydantic.
if TYPE_CHECKING:
    from cinetune.params import FramesParams

# Raise it when the store's format changes: stored frames are then decoded again.
SCHEMA_VERSION = 2


@dataclass(frozen=True)
class FrameSettings:
    """All that decides which frames a clip gives; pixels a side for `size`, frames for `min_shot_frames`."""

    policy: str
    num_frames: int
    size: int
    cut_threshold: float
    min_shot_frames: int
    seek: str = "exact"

    @classmethod
    def of(cls, params: FramesParams) -> FrameSettings:
        return cls(**{field.name: getattr(params, field.name) for field in dataclasses.fields(cls)})

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclass(frozen=True, eq=False)
class ClipFrames:
    """What is kept of a clip: uint8 RGB [n, size, size, 3], when each is shown and where shots begin (s).

    note: what is special about its pictures, in words; mostly nothing.
    """

    frames: np.ndarray
    times: tuple[float, ...]
    cuts: tuple[float, ...]
    duration_s: float
    note: str = ""


class ClipError(InputError):
    """A clip that gives no frames: `status` is one word for tables, the text is one sentence for people."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def identity(settings: FrameSettings) -> str:
    """16 hexadecimal digits that change when the same clip would give other frames."""
    content = json.dumps({"schema_version": SCHEMA_VERSION, **settings.to_dict()}, sort_keys=True)
    return text_digest(content)[:16]


def choose_times(duration_s: float, cuts: Sequence[float], settings: FrameSettings) -> list[float]:
    """Exactly `num_frames` ascending times in (0, duration_s).

    The policy "uniform" ignores the cuts (s). "shots" spreads the frames over the shots between the cuts, so
    that no shot stays unseen while frames are left for it; without cuts it equals "uniform".
    Raises InputError for a duration that is not above zero and for an unknown policy.
    """
    if not 0 < duration_s < math.inf:
        raise InputError(f"a clip's duration must be above 0 s and finite, got {duration_s!r}.")
    if settings.policy not in ("shots", "uniform"):
        raise InputError(f"frames.policy must be one of shots, uniform, got {settings.policy!r}.")
    inner = sorted({cut for cut in cuts if 0 < cut < duration_s}) if settings.policy == "shots" else []
    edges = [0.0, *inner, duration_s]
    shots = list(itertools.pairwise(edges))
    wanted = settings.num_frames
    if len(shots) >= wanted:
        shots = [shots[(2 * i + 1) * len(shots) // (2 * wanted)] for i in range(wanted)]
        counts = [1] * wanted
    else:
        counts = _share(wanted, [end - start for start, end in shots])
    return [
        start + (k + 0.5) * (end - start) / count
        for (start, end), count in zip(shots, counts, strict=True)
        for k in range(count)
    ]


def _share(total: int, weights: list[float]) -> list[int]:
    """`total` split over the weights: one each, the rest by largest remainder, earlier ones first."""
    rest = total - len(weights)
    quotas = [rest * weight / sum(weights) for weight in weights]
    counts = [1 + math.floor(quota) for quota in quotas]
    # Rounded, for shots of one length whose edges differ in the last bit must count as equal.
    order = sorted(range(len(weights)), key=lambda i: (-round(quotas[i] % 1, 6), i))
    for i in order[: total - sum(counts)]:
        counts[i] += 1
    return counts


def fit(image: np.ndarray, size: int, pixel_aspect: float = 1.0) -> np.ndarray:
    """uint8 [height, width, 3] -> uint8 [size, size, 3]: bicubic, shortest edge to `size`, centre crop.

    pixel_aspect: how many times wider than high a pixel is shown. Rounding and offsets are those of CLIP's image
    processor in Hugging Face transformers.
    """
    height, width = image.shape[0], image.shape[1] * pixel_aspect
    short, long = sorted((height, width))
    if long > 8 * short:
        # A strip would grow without bound when its short edge is enlarged, and only its centre is kept.
        image = _centre(image, round(min(height, 8 * short)), max(1, round(min(width, 8 * short) / pixel_aspect)))
        height, width = image.shape[0], image.shape[1] * pixel_aspect
        short, long = sorted((height, width))
    new_long = int(size * long / short)
    new_width, new_height = (size, new_long) if width <= height else (new_long, size)
    picture = Image.fromarray(np.ascontiguousarray(image))
    resized = picture.resize((new_width, new_height), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(_centre(np.asarray(resized), size, size))


def _centre(image: np.ndarray, height: int, width: int) -> np.ndarray:
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]
