"""Answers in words: equal but for form, or in part."""

from __future__ import annotations

import pandas as pd
import pytest

from cinetune.evaluation import open_answers
from cinetune.task.description import Task

pytestmark = pytest.mark.evaluation


@pytest.mark.parametrize(
    ("said", "right", "is_exact", "share"),
    [
        ("By the gate.", "by the gate", True, 1),
        ("THE GATE", "gate", True, 1),
        ("Ｇate", "gate", True, 1),
        ("by a red gate", "by the gate", False, 4 / 5),
        ("gate gate gate", "gate", False, 1 / 2),
        ("", "gate", False, 0),
        ("nowhere", "by the gate", False, 0),
        ("the", "the", True, 1),
        ("у ворот", "У ворот!", True, 1),
    ],
)
def test_words_are_compared_without_case_marks_and_articles(
    said: str, right: str, is_exact: bool, share: float
) -> None:
    assert (open_answers.tokens(said) == open_answers.tokens(right)) == is_exact
    assert open_answers.token_match(said, right) == pytest.approx(share)


def test_a_summary_counts_them_and_says_what_it_means() -> None:
    rows = pd.DataFrame({"clip_id": ["a", "a", "b"], "raw": ["Gate", None, "red gate"], "words": ["gate"] * 3})
    found = open_answers.measure(rows, "clips", Task(open_questions=True))
    assert found["n"] == 3 and found["exact"]["correct"] == 1 and found["token_match"] == pytest.approx(5 / 9)
    assert "English articles" in found["note"]
    assert open_answers.headline(found) == ["open questions: 33.3% exact, 55.6% token match, of 3."]


def test_none_were_asked() -> None:
    rows = pd.DataFrame({"clip_id": [], "raw": [], "words": []})
    found = open_answers.measure(rows, "clips", Task(open_questions=True))
    assert found["exact"]["accuracy"] is None and found["token_match"] is None and open_answers.headline(found) == []
