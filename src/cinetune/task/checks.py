"""What a row of questions must hold to be asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from cinetune.task import clip_ids
from cinetune.task.description import CINEPILE, Task


def check_choices(choices: Any, task: Task) -> str | None:
    """Why these options cannot be asked, or None: different texts, none empty, as many as the task has."""
    if isinstance(choices, str) or not isinstance(choices, Sequence | np.ndarray):
        return f"choices must be a list of {task.counted} texts, got {choices!r}"
    if not task.min_choices <= len(choices) <= task.max_choices:
        return f"choices must be {task.counted}, got {len(choices)}: {list(choices)!r}"
    for choice in choices:
        if not isinstance(choice, str) or not choice.strip():
            return f"choices must be texts that are not empty, got {choice!r}"
    if len({choice.strip() for choice in choices}) < len(choices):
        return f"choices must differ from each other, got {list(choices)!r}"
    return None


def check_text(name: str, value: Any) -> str | None:
    if not isinstance(value, str) or not value.strip():
        return f"{name} must be text that is not empty, got {value!r}"
    return None


def check_row(row: Mapping[str, Any], task: Task = CINEPILE) -> str | None:
    """Why a row in the columns of a task cannot be used, or None."""

    def lacks(name: str) -> bool:
        """May it be left out, and is it?"""
        return not task.needs(name) and is_absent(value(row, name, task))

    group, subtitles = task.column("group"), value(row, "subtitles", task)
    reason = (
        clip_ids.check(value(row, "clip_id", task))
        or (None if lacks("group") else check_text(group, row[group]))
        or check_text(task.column("question"), value(row, "question", task))
    )
    if reason:
        return reason
    # With the name it tells groups apart, and so keeps the splits apart.
    if task.column("year") and not is_whole(value(row, "year", task)):
        return f"{task.column('year')} must be a whole number, got {value(row, 'year', task)!r}"
    if not lacks("subtitles") and not isinstance(subtitles, str):
        return f"{task.column('subtitles')} must be text, got {subtitles!r}"
    category = value(row, "category", task)
    return _check_answer(row, task) or (_check_category(category, task) if task.categories else None)


def _check_answer(row: Mapping[str, Any], task: Task) -> str | None:
    """Why the options or the answer cannot be used; a row without options needs an answer in words alone."""
    choices, answer, text = (value(row, name, task) for name in ("choices", "answer", "answer_text"))
    named, of_text = task.column("answer"), task.column("answer_text")
    if is_open(choices, task):
        wrong = None if is_absent(answer) else f"{named} must be empty where there are no choices, got {answer!r}"
        return wrong or check_text(of_text, text)
    if reason := check_choices(choices, task):
        return reason
    if not is_whole(answer) or not 0 <= answer < len(choices):
        return f"{named} must be a whole number from 0 to {len(choices) - 1}, got {answer!r}"
    is_told = task.needs("answer_text") or not is_absent(text)
    if is_told and (not isinstance(text, str) or choices[int(answer)] != text):
        return f"{of_text} must be option {int(answer)} of choices, got {text!r}"
    return None


def _check_category(category: Any, task: Task) -> str | None:
    if isinstance(category, str) and category in task.shorts:
        return None
    known = ", ".join(repr(name) for name in task.shorts)
    return f"{task.column('category')} must be one of {known}, got {category!r}"


def is_open(choices: Any, task: Task) -> bool:
    """Has a row no options, where a task has open questions?"""
    if not task.open_questions:
        return False
    return is_absent(choices) or (isinstance(choices, Sequence | np.ndarray) and len(choices) == 0)


def value(row: Mapping[str, Any], name: str, task: Task) -> Any:
    """None for a column that a task or a file does not have."""
    column = task.column(name)
    return row.get(column) if column else None


def is_absent(value: Any) -> bool:
    """What an empty cell becomes, in one column or another."""
    return value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value))


def is_whole(value: Any) -> bool:
    """A null elsewhere makes pandas read a column of whole numbers as floats, so 2.0 is whole."""
    if isinstance(value, float):
        return value.is_integer()
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
