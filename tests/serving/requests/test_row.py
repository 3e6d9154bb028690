"""A request's options are judged by the task of the version that answers it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from builders.refusals import sentence
from cinetune.errors import InputError
from cinetune.serving import prediction
from cinetune.serving.requests import row
from cinetune.serving.service import example_row
from cinetune.task.checks import check_choices
from cinetune.task.description import CINEPILE, Task

pytestmark = pytest.mark.serving

ASKED = {"video": "AAAA", "question": "Where?"}


@pytest.mark.parametrize(
    ("task", "allowed"),
    [(CINEPILE, {5}), (Task(), set(range(2, 11))), (Task(max_choices=4), {2, 3, 4}), (Task(max_choices=2), {2})],
    ids=["CinePile", "any", "up to four", "two"],
)
def test_as_many_options_are_taken_as_the_task_has(task: Task, allowed: set[int]) -> None:
    for count in range(12):
        choices = [f"place {number}" for number in range(count)]
        if count in allowed:
            assert row.read(ASKED | {"choices": choices}, task).question.choices == tuple(choices)
        else:
            with pytest.raises(InputError, match=f"choices must be {task.counted}, got {count}"):
                row.read(ASKED | {"choices": choices}, task)
    assert row.read(ASKED, task).question.choices is None


@pytest.mark.parametrize("given", ["a|b", 3, {"a": 1}])
def test_options_that_are_no_list_are_refused(given: Any) -> None:
    with pytest.raises(InputError, match="choices must be a list of 2 to 10 texts"):
        row.read(ASKED | {"choices": given}, Task())


@pytest.mark.parametrize("hold", [tuple, np.array, pd.Series, pd.Index, pd.array], ids=lambda hold: hold.__name__)
def test_options_may_be_in_any_list_of_python_numpy_and_pandas(hold: Any) -> None:
    assert row.read(ASKED | {"choices": hold(["here", "there"])}, Task()).question.choices == ("here", "there")


@pytest.mark.parametrize("null", [None, float("nan"), np.float32("nan"), pd.NA, pd.NaT], ids=str)
def test_every_null_of_pandas_is_one(null: Any) -> None:
    found = row.read(ASKED | {"choices": null, "subtitles": null}, Task())
    assert found.question.choices is None and found.subtitles == ""
    for name, value in (("video", null), ("question", null), ("choices", ["here", null])):
        with pytest.raises(InputError, match="got null"):
            row.read(ASKED | {name: value}, Task())


def test_a_path_is_called_one() -> None:
    with pytest.raises(InputError, match="got a path"):
        row.read(ASKED | {"video": Path("a.mp4")}, Task())


def test_options_on_the_command_line_are_as_many_too() -> None:
    assert prediction.read_choices("here | there", Task()) == ("here", "there")
    assert "choices must be 5, got 2" in sentence(lambda: prediction.read_choices("here|there", CINEPILE))
    assert "separate options by |" in sentence(lambda: prediction.read_choices("here", Task()))


@pytest.mark.parametrize("low", range(2, 11))
def test_every_task_can_answer_its_example(low: int) -> None:
    for high in range(low, 11):
        task = Task(min_choices=low, max_choices=high)
        assert check_choices(example_row(task)["choices"], task) is None
    assert len(example_row(CINEPILE)["choices"]) == 5
