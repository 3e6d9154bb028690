"""Two predictions are compared only on questions that are the same in both."""

from __future__ import annotations

import pandas as pd
import pytest

from builders.predictions import predictions
from builders.refusals import sentence
from cinetune.evaluation.metrics import scored
from cinetune.evaluation.paired import paired
from cinetune.evaluation.predictions import answered_row
from cinetune.task.questions import ClipQuestions, Question

pytestmark = pytest.mark.evaluation

CHOICES = ("a key", "a rope", "a lamp", "a map", "a ring")


def rows(
    text: str = "What is it?", choices: tuple[str, ...] = CHOICES, answer: int = 2, rotation: int = 0
) -> pd.DataFrame:
    question = Question("clip-000", text, choices, answer, "Temporal", "False", "0")
    clip = ClipQuestions("clip", "Film (2001)", "", (question,))
    return scored(pd.DataFrame([answered_row(clip, question, "A", (0.2,) * 5, rotation)]))


@pytest.mark.parametrize(
    "other",
    [rows("What was it?"), rows(choices=("a kex", *CHOICES[1:])), rows(choices=(*CHOICES[:3], "a ring", "a map"))],
)
def test_another_text_or_another_option_under_the_same_id_is_refused(other: pd.DataFrame) -> None:
    assert "clip-000" in sentence(lambda: paired(rows(), other, "logit"))


def test_the_same_question_is_the_same_in_any_rotation() -> None:
    assert len(paired(rows(), rows(rotation=3), "logit")) == 1


def test_predictions_without_digests_are_compared_by_what_they_have() -> None:
    old = rows().drop(columns="question_digest")
    assert len(paired(old, rows(), "logit")) == 1
    assert "text" in sentence(lambda: paired(old, rows("What was it?"), "logit"))
    older = scored(predictions(0.5).drop(columns="question"))
    assert len(paired(older, scored(predictions(0.9)), "logit")) == len(older)
