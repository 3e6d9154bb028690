"""A request that any version of a task answers."""

from __future__ import annotations

import base64
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from cinetune.frames.encoding import encode
from cinetune.task.description import Task

# What the example may be asked with, and with how many of them where a task takes any number.
EXAMPLE_CHOICES = (
    "to the right", "to the left", "up", "down", "nowhere", "round and round", "up and down", "off the screen",
    "back again", "towards us",
)  # fmt: skip
USUAL_CHOICES = 5


def example_row(task: Task) -> dict[str, Any]:
    """A row that a version of this task answers: one second of a moving square."""
    pictures: np.ndarray = np.full((12, 64, 64, 3), 90, dtype=np.uint8)
    for number, picture in enumerate(pictures):
        picture[24:40, 4 * number : 4 * number + 16] = (230, 200, 40)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "example.mp4"
        encode(path, pictures, 12)
        content = base64.b64encode(path.read_bytes()).decode()
    return {
        "video": content,
        "question": "Where does the square go?",
        "choices": list(EXAMPLE_CHOICES[: max(task.min_choices, min(USUAL_CHOICES, task.max_choices))]),
        "subtitles": "<subtitle> Look at it go.",
    }
