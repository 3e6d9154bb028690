"""Rows in plain columns, of tasks that are not CinePile's: any number of options, no category, no group, no words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from builders.refusals import sentence
from cinetune.task import description, groups, questions
from cinetune.task.description import Task

pytestmark = pytest.mark.data

BARE = {"clip_id": "a", "question": "Where?", "choices": ["here", "there", "nowhere"], "answer": 1}
OWN = Task(group="camera", min_choices=2, max_choices=4, categories={"where": "Where", "who": "Who"})


def clips_of(task: Task, *rows: dict[str, Any]) -> list[questions.ClipQuestions]:
    return questions.clips_of(pd.DataFrame(list(rows)), "given.parquet", task)


def test_four_columns_are_enough() -> None:
    (clip,) = clips_of(Task(), BARE)
    assert (clip.clip_id, clip.group, clip.subtitles, clip.url, clip.year) == ("a", "a", "", "", None)
    (question,) = clip.questions
    assert (question.choices, question.answer, question.category) == (("here", "there", "nowhere"), 1, "")
    assert question.answer_text == "there" and not question.is_open


@pytest.mark.parametrize("column", ["clip_id", "question", "choices", "answer"])
def test_each_of_the_four_is_needed(column: str) -> None:
    rows = {name: value for name, value in BARE.items() if name != column}
    assert repr(column) in sentence(lambda: clips_of(Task(), rows))


def test_a_file_is_read_by_its_folders_description(tmp_path: Path) -> None:
    (tmp_path / "questions").mkdir()
    rows = [BARE | {"category": "Who", "group": f"yard {n}", "clip_id": f"c{n}", "subtitles": "Hm."} for n in range(3)]
    pd.DataFrame(rows).to_parquet(tmp_path / "questions/train.parquet")
    description.write(tmp_path, OWN)
    clips = questions.load(tmp_path, "train")
    assert [clip.group for clip in clips] == ["yard 0", "yard 1", "yard 2"] and clips[0].subtitles == "Hm."
    assert clips[0].questions[0].category == "Who"
    assert groups.groups_of(tmp_path, "train") == {"yard 0", "yard 1", "yard 2"}
    train, held_out = groups.split_groups(clips, 0.34, 0)
    assert len(train) == 2 and len(held_out) == 1


def test_the_number_of_options_may_differ_from_question_to_question_within_the_tasks_bounds() -> None:
    rows = [BARE | {"choices": [f"place {i}" for i in range(n)], "category": "Where"} for n in (2, 3, 4)]
    (clip,) = clips_of(OWN, *rows)
    assert [len(question.choices) for question in clip.questions] == [2, 3, 4]


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"choices": ["one"]}, "choices must be 2 to 4, got 1"),
    ({"choices": list("abcde")}, "choices must be 2 to 4, got 5"),
    ({"choices": None}, "choices must be a list of 2 to 4 texts"),
    ({"choices": "a|b"}, "choices must be a list"),
    ({"choices": ["a", "a "]}, "differ"),
    ({"answer": 3}, "from 0 to 2, got 3"),
    ({"answer": -1}, "from 0 to 2"),
    ({"answer": None}, "answer must be"),
    ({"answer": "B"}, "answer must be"),
    ({"answer_text": "nowhere"}, "answer_text must be option 1"),
    ({"category": "where"}, "category must be one of 'Where', 'Who', got 'where'"),
    ({"category": None}, "category must be one of"),
    ({"group": " "}, "group must be text"),
    ({"subtitles": 3}, "subtitles must be text"),
    ({"clip_id": "../a"}, "clip_id"),
]


@pytest.mark.parametrize(("changed", "told"), REFUSED, ids=[str(changed)[:40] for changed, _ in REFUSED])
def test_a_row_that_cannot_be_asked_is_named(changed: dict[str, Any], told: str) -> None:
    good = BARE | {"category": "Where"}
    table = pd.DataFrame({name: pd.Series([value], dtype=object) for name, value in (good | changed).items()})
    said = sentence(lambda: questions.clips_of(table, "given.parquet", OWN))
    assert told in said and "row 0" in said


def test_a_clip_of_two_groups_is_refused() -> None:
    rows = [BARE | {"group": "yard", "category": "Who"}, BARE | {"group": "gate", "category": "Who"}]
    assert "'gate'" in sentence(lambda: clips_of(OWN, *rows))


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA])
def test_an_empty_cell_is_none_given(missing: Any) -> None:
    (clip,) = clips_of(Task(), BARE | {"group": missing, "subtitles": missing, "answer_text": missing, "url": missing})
    assert (clip.group, clip.subtitles, clip.url) == ("a", "", "")


OPEN = Task(open_questions=True)


@pytest.mark.parametrize("none", [None, [], np.array([], dtype=object)], ids=repr)
def test_an_open_question_has_no_options_and_an_answer_in_words(none: Any) -> None:
    row = BARE | {"choices": none, "answer": None, "answer_text": "by the gate"}
    (clip,) = clips_of(OPEN, BARE | {"answer_text": None}, row)
    lettered, worded = clip.questions
    assert worded.is_open and worded.options is None and worded.answer_text == "by the gate"
    assert not lettered.is_open and worded.reordered([]) == worded and worded.digest != lettered.digest


@pytest.mark.parametrize(
    ("changed", "told"),
    [({"answer_text": None}, "answer_text must be text"), ({"answer": 1, "answer_text": "x"}, "must be empty")],
)
def test_an_open_question_without_words_or_with_a_letter_is_refused(changed: dict[str, Any], told: str) -> None:
    row = BARE | {"choices": None, "answer": None} | changed
    assert told in sentence(lambda: clips_of(OPEN, row))
