"""All frames that were looked at on one sheet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cinetune.frames.sampling import ClipFrames
from cinetune.report import contact_sheet

pytestmark = pytest.mark.serving


def test_all_frames_are_on_the_sheet_in_order(tmp_path: Path) -> None:
    frames = np.stack([np.full((64, 64, 3), 30 * number, np.uint8) for number in range(6)])
    contact_sheet.save(ClipFrames(frames, tuple(range(6)), (), 7.0), tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        pixels = np.asarray(sheet)
    width = pixels.shape[1] // 4
    assert [int(pixels[40, width // 2 + n * width, 0]) for n in range(4)] == [0, 30, 60, 90]
    assert [int(pixels[pixels.shape[0] // 2 + 40, width // 2 + n * width, 0]) for n in range(2)] == [120, 150]
