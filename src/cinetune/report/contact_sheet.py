"""The frames that the model was shown, on one picture with their times."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from cinetune.frames.sampling import ClipFrames

COLUMNS, MARGIN, LABEL_HEIGHT, SMALLEST_SIDE = 4, 6, 16, 160


def save(clip: ClipFrames, path: Path) -> None:
    draw(clip).save(path)


def draw(clip: ClipFrames) -> Image.Image:
    """All frames in order, small ones enlarged."""
    side = max(SMALLEST_SIDE, clip.frames.shape[1])
    rows = math.ceil(len(clip.frames) / COLUMNS)
    columns = min(COLUMNS, len(clip.frames))
    width, height = side + MARGIN, side + LABEL_HEIGHT + MARGIN
    sheet = Image.new("RGB", (columns * width + MARGIN, rows * height + MARGIN), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (frame, time_s) in enumerate(zip(clip.frames, clip.times, strict=True)):
        left, top = MARGIN + number % COLUMNS * width, MARGIN + number // COLUMNS * height
        picture = Image.fromarray(np.ascontiguousarray(frame)).resize((side, side), Image.Resampling.NEAREST)
        sheet.paste(picture, (left, top))
        pen.text((left + 2, top + side + 2), f"{number + 1}: {_clock(time_s)}", fill="black")
    return sheet


def _clock(time_s: float) -> str:
    minutes, seconds = divmod(time_s, 60)
    return f"{int(minutes) // 60}:{int(minutes) % 60:02d}:{seconds:05.2f}"
