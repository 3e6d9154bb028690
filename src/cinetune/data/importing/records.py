"""A row of a question file in the plain format, read and judged by itself.

Columns: video, question, choices, answer; and optionally category, group, subtitles, start and end.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from cinetune.errors import InputError
from cinetune.task.checks import check_choices, check_text, is_absent
from cinetune.task.description import LETTERS, Task

REQUIRED = ("video", "question", "choices", "answer")
COLUMNS = (*REQUIRED, "category", "group", "subtitles", "start", "end", "split")
# Of a question in any task; a description says afterwards what there is.
ANY = Task(open_questions=True)
LETTER = re.compile(r"\(?([A-Za-z])[).:]?")
# Above it a float is not every whole number.
MAX_EXACT = 1e15
WHOLE = re.compile(r"([+-]?\d{1,15})(?:\.0*)?", re.ASCII)
CLOCK = re.compile(r"(?:(\d{1,9}):)?(\d{1,9}):([0-5]?\d(?:\.\d+)?)", re.ASCII)


class Record(NamedTuple):
    """A row that can be asked, of a video that is yet to be found; `number` tells which row it is.

    `answer` is -1 and `words` holds it where the row has no options; start and end in s, an end of 0 is the video's.
    """

    number: int
    split: str
    video: str
    start_s: float
    end_s: float
    question: str
    choices: tuple[str, ...]
    answer: int
    words: str
    category: str
    group: str
    subtitles: str


def read(row: Mapping[str, Any], number: int, split: str, is_answered: bool = True) -> Record:
    """One row; `is_answered`: must it have an answer? Raises InputError for what cannot be used."""
    video, question = (_text(row, column).strip() for column in ("video", "question"))
    for column, text in (("video", video), ("question", question)):
        if reason := check_text(column, text):
            raise InputError(reason)
    choices = read_choices(row.get("choices"))
    answer = row.get("answer")
    has_none = _is_empty(answer)
    if has_none and is_answered:
        raise InputError(f"answer is empty, the question is {question!r}")
    start_s, end_s = (read_time(column, row.get(column)) for column in ("start", "end"))
    if end_s and end_s <= start_s:
        raise InputError(f"end is {end_s:g} s, not after start ({start_s:g} s)")
    return Record(
        number,
        split,
        video,
        start_s,
        end_s,
        question,
        choices,
        read_answer(answer, choices) if choices and not has_none else -1,
        "" if choices or has_none else _text(row, "answer").strip(),
        *(_text(row, column).strip() for column in ("category", "group", "subtitles")),
    )


def read_choices(value: Any) -> tuple[str, ...]:
    """Options of a list, or of a text that separates them by |; none for an open question."""
    if _is_empty(value):
        return ()
    if isinstance(value, str):
        if value.startswith("["):
            raise InputError(f"choices must be a JSON list or texts separated by |, got {value!r}")
        value = value.split("|")
    if not is_list(value):
        raise InputError(f"choices must be a list or texts separated by |, got {value!r}")
    choices = [choice.strip() if isinstance(choice, str) else number_text(choice) or choice for choice in value]
    if reason := check_choices(choices, ANY):
        raise InputError(reason)
    for choice in choices:
        _check_encodable("choices", choice)
    if len({choice.casefold() for choice in choices}) < len(choices):
        raise InputError(f"choices must differ by more than case, got {choices!r}")
    return tuple(choices)


def read_answer(value: Any, choices: Sequence[str]) -> int:
    """The index of the option that an answer names: by its text, else by its letter, else by its index from 0."""
    text = value.strip() if isinstance(value, str) else number_text(value) or ""
    whole = WHOLE.fullmatch(text)
    # A table with empty cells has 2.0 for 2.
    for spelled in (text, whole[1] if whole else text):
        if spelled in choices:
            return choices.index(spelled)
    letter = LETTER.fullmatch(text)
    if letter and (place := LETTERS.find(letter[1].upper())) >= 0:
        if place >= len(choices):
            raise InputError(
                f"answer {value!r} is beyond the {len(choices)} options (A to {LETTERS[len(choices) - 1]})"
            )
        return place
    if whole:
        index = int(whole[1])
        if not 0 <= index < len(choices):
            counted = f"{len(choices)} options (0 to {len(choices) - 1}: an index counts from 0)"
            raise InputError(f"answer {value!r} is beyond the {counted}")
        return index
    folded = [choice.casefold() for choice in choices]
    if text.casefold() in folded:
        return folded.index(text.casefold())
    raise InputError(f"answer {value!r} names none of the options {list(choices)!r}")


def read_time(column: str, value: Any) -> float:
    """Seconds, as a number or a clock such as 1:02:03.5; 0 for none."""
    if _is_empty(value):
        return 0.0
    text = str(value).strip()
    if clock := CLOCK.fullmatch(text):
        return 3600.0 * int(clock[1] or 0) + 60 * int(clock[2]) + float(clock[3])
    try:
        seconds = math.nan if isinstance(value, bool) else float(text.replace(",", "."))
    except (ValueError, OverflowError):
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise InputError(f"{column} must be seconds from 0 on, or a clock such as 1:02:03, got {value!r}")
    return seconds


def number_text(value: Any) -> str | None:
    """A number as people write it, 2.0 as 2; None for what is no number."""
    if isinstance(value, bool | np.bool) or not isinstance(value, int | float | np.integer | np.floating):
        return None
    if isinstance(value, int | np.integer):
        return str(value)
    number = float(value)
    if not math.isfinite(number):
        return None
    return str(int(number)) if number.is_integer() and abs(number) < MAX_EXACT else repr(number)


def is_list(value: Any) -> bool:
    """As JSON and Parquet give lists."""
    return isinstance(value, Sequence | np.ndarray) and not isinstance(value, str)


def _is_empty(value: Any) -> bool:
    if is_list(value):
        return len(value) == 0
    return is_absent(value) or (isinstance(value, str) and not value.strip())


def _text(row: Mapping[str, Any], column: str) -> str:
    """Numbers count as text: JSON has them as ids of videos and names of groups."""
    value = row.get(column)
    if is_absent(value):
        return ""
    text = value if isinstance(value, str) else number_text(value)
    if text is None:
        raise InputError(f"{column} must be text, got {value!r}")
    _check_encodable(column, text)
    if "\0" in text:
        raise InputError(f"{column} holds a NUL, got {text!r}")
    return text


def _check_encodable(column: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        shown = text.encode("utf-8", "backslashreplace").decode()
        raise InputError(f"{column} is not UTF-8, got '{shown}': save the file as UTF-8") from None
