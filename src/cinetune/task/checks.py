"""What a row of questions must hold to be asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from cinetune.task import clip_ids
from cinetune.task.description import CINEPILE, MAPPED, Task


def check_choices(choices: Any, task: Task) -> str | None:
    """Why these options cannot be asked, or None: different texts, none empty, as many as the task has."""
    if isinstance(choices, str) or not isinstance(choices, Sequence | np.ndarray):
        return f"choices must be a list of {task.counted} texts, got {choices!r}"
    if not task.min_choices <= len(choices) <= task.max_choices:
        return f"choices must be {task.counted}, got {len(choices)}: {list(choices)!r}"
    seen = set()
    for choice in choices:
        if not isinstance(choice, str) or not (words := choice.strip()):
            return f"choices must be texts that are not empty, got {choice!r}"
        seen.add(words)
    if len(seen) < len(choices):
        return f"choices must differ from each other, got {list(choices)!r}"
    return None


def check_text(name: str, value: Any) -> str | None:
    if not isinstance(value, str) or not value.strip():
        return f"{name} must be text that is not empty, got {value!r}"
    return None


def check_row(row: Mapping[str, Any], task: Task = CINEPILE) -> str | None:
    """Why a row cannot be used, or None; it is as `named` gives it."""

    def lacks(name: str) -> bool:
        """May it be left out, and is it?"""
        return not task.needs(name) and is_absent(row[name])

    reason = (
        clip_ids.check(row["clip_id"])
        or (None if lacks("group") else _check_text("group", row, task))
        or _check_text("question", row, task)
    )
    if reason:
        return reason
    # With the name it tells groups apart, and so keeps the splits apart.
    if "year" in task.names and not is_whole(row["year"]):
        return f"{task.column('year')} must be a whole number, got {row['year']!r}"
    if not isinstance(row["subtitles"], str) and not lacks("subtitles"):
        return f"{task.column('subtitles')} must be text, got {row['subtitles']!r}"
    return _check_answer(row, task) or (_check_category(row["category"], task) if task.categories else None)


def _check_text(name: str, row: Mapping[str, Any], task: Task) -> str | None:
    return check_text(task.column(name), row[name])


def _check_answer(row: Mapping[str, Any], task: Task) -> str | None:
    """Why the options or the answer cannot be used; a row without options needs an answer in words alone."""
    choices, answer, text = row["choices"], row["answer"], row["answer_text"]
    if is_open(choices, task):
        named = task.column("answer")
        wrong = None if is_absent(answer) else f"{named} must be empty where there are no choices, got {answer!r}"
        return wrong or _check_text("answer_text", row, task)
    if reason := check_choices(choices, task):
        return reason
    if not is_whole(answer) or not 0 <= answer < len(choices):
        return f"{task.column('answer')} must be a whole number from 0 to {len(choices) - 1}, got {answer!r}"
    is_told = task.needs("answer_text") or not is_absent(text)
    if is_told and (not isinstance(text, str) or choices[int(answer)] != text):
        return f"{task.column('answer_text')} must be option {int(answer)} of choices, got {text!r}"
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


def named(row: Mapping[str, Any], task: Task) -> dict[str, Any]:
    """A row of a file under our names of its columns, None for one that the task or the file does not have."""
    return {name: row.get(column) if (column := task.column(name)) else None for name in MAPPED}


def is_absent(value: Any) -> bool:
    """What an empty cell becomes, in one column or another."""
    return value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value))


def is_whole(value: Any) -> bool:
    """A null elsewhere makes pandas read a column of whole numbers as floats, so 2.0 is whole."""
    if isinstance(value, float):
        return value.is_integer()
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
