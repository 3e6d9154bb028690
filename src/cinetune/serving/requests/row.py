"""One row of a request: its values are judged as they were sent, and nothing is made text that is none."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from cinetune.errors import InputError
from cinetune.inference.scoring import QuestionPrompt
from cinetune.serving.requests.form import COLUMNS, LIST
from cinetune.task.checks import check_choices, check_text
from cinetune.task.description import Task

MAX_TEXT_CHARS, MAX_SUBTITLE_CHARS = 10_000, 200_000
MAX_IMAGES = 128
KINDS: tuple[tuple[Any, str], ...] = (
    (type(None), "null"),
    (bool, "true or false"),
    ((int, float, np.number), "a number"),
    (str, "text"),
    (LIST, "a list"),
    (Mapping, "an object"),
    (os.PathLike, "a path"),
)


@dataclass(frozen=True, eq=False)
class AskedRow:
    """What a row asks; `shown` is a video's base64, name or own bytes, or the base64 of images in their order."""

    shown: str | bytes | tuple[str, ...]
    question: QuestionPrompt
    subtitles: str


def read(row: Mapping[str, Any], task: Task) -> AskedRow:
    """Raises InputError for a row that cannot be asked of a model of this task. An absent value is one that is null."""
    video, question, choices, subtitles, images = (_present(row.get(name)) for name in COLUMNS)
    if video is not None and images is not None:
        raise InputError("a row holds a video or images, got both: leave one out")
    return AskedRow(
        _video(video) if images is None else _images(images),
        QuestionPrompt(_question(question), None if choices is None else _choices(choices, task)),
        "" if subtitles is None else _text("subtitles", subtitles, MAX_SUBTITLE_CHARS),
    )


def _present(value: Any) -> Any:
    """None for the nulls of pandas."""
    is_null = value is pd.NA or value is pd.NaT or (isinstance(value, float | np.floating) and math.isnan(value))
    return None if is_null else value


def _video(value: Any) -> str | bytes:
    # No error shows anything of a video.
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if not isinstance(value, str) or not value:
        raise InputError(f"video must be text that is not empty, got {_kind(value)}")
    return value


def _images(values: Any) -> tuple[str, ...]:
    if not isinstance(values, LIST) or not len(values):
        raise InputError(f"images must be a list of base64 texts that is not empty, got {_kind(values)}")
    if len(values) > MAX_IMAGES:
        raise InputError(f"images may be {MAX_IMAGES}, got {len(values)}: send every second one, or a video")
    for number, value in enumerate(values, 1):
        if not isinstance(value, str) or not value:
            raise InputError(f"image {number} must be text that is not empty, got {_kind(value)}")
    return tuple(values)


def _question(value: Any) -> str:
    text = _text("question", value, MAX_TEXT_CHARS)
    if reason := check_text("question", text):
        raise InputError(reason)
    return text


def _choices(values: Any, task: Task) -> tuple[str, ...]:
    if not isinstance(values, LIST):
        raise InputError(f"choices must be a list of {task.counted} texts, or null, got {_kind(values)}")
    if not task.min_choices <= len(values) <= task.max_choices:
        raise InputError(f"choices must be {task.counted}, got {len(values)}")
    texts = tuple(_text("a choice", value, MAX_TEXT_CHARS) for value in values)
    if reason := check_choices(texts, task):
        raise InputError(reason)
    return texts


def _text(name: str, value: Any, max_chars: int) -> str:
    if not isinstance(value, str):
        raise InputError(f"{name} must be text, got {_kind(value)}")
    if len(value) > max_chars:
        raise InputError(f"{name} may hold {max_chars} characters, got {len(value)}: shorten it")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InputError(f"{name} holds half of a surrogate pair: send whole characters") from None
    return str(value)


def _kind(value: Any) -> str:
    """What a value is, in words that show nothing of it."""
    value = _present(value)
    return next((word for kind, word in KINDS if isinstance(value, kind)), type(value).__name__)
