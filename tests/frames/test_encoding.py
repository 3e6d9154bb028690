"""Small files of given frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from builders.videos import film, numbered
from cinetune.errors import InputError
from cinetune.frames.encoding import encode

pytestmark = pytest.mark.data


def test_the_same_frames_give_the_same_bytes_in_silence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name in ("a.mp4", *(f"-{number}\n:.mp4" for number in range(10))):
        encode(tmp_path / name, film([24, 24]), 12)
    content = (tmp_path / "a.mp4").read_bytes()
    # Often enough: when the encoder used all of the processor's instructions, every third file was another.
    assert all(path.read_bytes() == content for path in tmp_path.iterdir())
    assert b"x264" not in content and b"Lavf" not in content
    assert capfd.readouterr() == ("", "")


def test_ten_seconds_of_a_flat_drawing_take_little_room(tmp_path: Path) -> None:
    encode(tmp_path / "film.mp4", film([60, 60]), 12)
    assert (tmp_path / "film.mp4").stat().st_size < 20_000


def test_writing_that_fails_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "old.mp4").write_bytes(b"old")
    bad: list[list[np.ndarray]] = [
        [],
        [np.zeros((63, 64, 3), np.uint8)],
        [*numbered(2), *numbered(1, side=32)],
    ]
    for frames in bad:
        with pytest.raises(InputError):
            encode(tmp_path / "old.mp4", frames, 12)
    assert [path.name for path in tmp_path.iterdir()] == ["old.mp4"]
    assert (tmp_path / "old.mp4").read_bytes() == b"old"
