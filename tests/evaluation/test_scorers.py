"""Every model text that must not surprise anybody, and what each scorer makes of it; verdicts written by hand."""

from __future__ import annotations

import math

import pytest

from cinetune.evaluation import metrics, predictions
from cinetune.task.description import CINEPILE
from cinetune.task.questions import ClipQuestions, Question

pytestmark = pytest.mark.evaluation

CHOICES = ("The dog barks", "A man walks in", "She leaves the room", "Nothing happens", "They sing")
QUESTION = Question("clip-000", "What happens first?", CHOICES, 1, next(iter(CINEPILE.shorts)), "False", "1")
CLIP = ClipQuestions("clip", "Film (1999)", "", (QUESTION,), 1999, ("Drama",), "https://example.org/clip")
RAMBLE = ("The scene opens on a street and people talk about many things for a while. " * 140)[:10_000]
FAVOURS_D = (0.1, 0.2, 0.2, 0.4, 0.1)

# text, strict, lenient, does it decline to choose; B is right, and no text moves the logit scorer
VERDICTS = [
    ("", None, None, False),
    (" ", None, None, False),
    ("B", "B", "B", False),
    (" B", "B", "B", False),
    ("(B)", None, "B", False),
    ("b.", None, "B", False),
    ("**B**", "B", "B", False),
    ("Answer: B", "B", "B", False),
    ("The answer is not A, it is C", None, "C", False),
    ("A or B", None, None, True),
    ("AB", None, None, True),
    ("None", None, None, True),
    ("I think ...", None, None, False),
    ("Based on ...", None, None, False),
    ("A man walks in", "B", "B", False),
    ("a man walks in.", None, "B", False),
    ("Answer: A. No, the answer is B", None, "B", False),
    ("Answer: A\nAnswer: B", None, "B", False),
    ("Ｂ", None, "B", False),
    ("В", None, "B", False),
    ("Ⓑ", None, "B", False),
    ("F", None, None, False),
    ("Answer: F", None, None, False),
    (RAMBLE, None, None, False),
    ("\n\n\n", None, None, False),
    ("I cannot tell", None, None, True),
]


def row_of(text, shares=FAVOURS_D, rotation=0):
    return predictions.answered_row(CLIP, QUESTION, text, shares, rotation)


@pytest.mark.parametrize(("text", "strict", "lenient", "abstains"), VERDICTS, ids=lambda value: repr(value)[:30])
def test_each_text_has_one_verdict_a_scorer(text, strict, lenient, abstains):
    row = row_of(text)
    assert (row["strict"], row["lenient"], row["abstained"]) == (strict, lenient, abstains)
    assert row["logit"] == "D" and row["raw"] == text


@pytest.mark.parametrize("scorer", metrics.SCORERS)
def test_verdicts_add_up_in_the_summary(scorer):
    rows = [{**row_of(text), "question_id": f"q{number:03d}"} for number, (text, *_) in enumerate(VERDICTS)]
    scores = metrics.summarise(predictions.as_table(rows), "m", "d", "test", None, 10, 0)["scorers"][scorer]
    letters = {"strict": [v[1] for v in VERDICTS], "lenient": [v[2] for v in VERDICTS], "logit": ["D"] * len(VERDICTS)}
    assert scores["overall"]["correct"] == letters[scorer].count("B")
    assert scores["unparsed"] == letters[scorer].count(None) == scores["letters"]["none"]
    assert scores["confusion"]["B"] == scores["letters"]
    if scorer == "lenient":
        assert scores["abstained"] == sum(v[3] for v in VERDICTS)


def test_a_letter_that_is_no_option_of_this_question_counts_for_nothing():
    four = Question("q", "What?", CHOICES[:4], 0, QUESTION.category, "False", "1")
    row = predictions.answered_row(CLIP, four, "E", (0.25,) * 4 + (0.0,))
    assert row["strict"] is None and row["lenient"] is None and not row["abstained"]


def test_under_a_rotation_letters_and_words_are_read_as_the_question_was_asked():
    row = row_of("She leaves the room", rotation=2)
    assert (row["strict"], row["lenient"], row["gold"], row["logit"]) == ("A", "A", "E", "D")


def test_probabilities_that_are_not_numbers_leave_the_logit_scorer_without_an_answer():
    for shares in ((math.nan,) * 5, (0.5, math.nan, 0.5, 0.0, 0.0)):
        assert row_of("B", shares)["logit"] is None
    table = predictions.as_table([row_of("B", (math.nan,) * 5)])
    summary = metrics.summarise(table, "m", "d", "test", None, 10, 0)
    assert summary["scorers"]["logit"]["unparsed"] == 1 and summary["scorers"]["strict"]["unparsed"] == 0
    assert summary["calibration"] == {
        "n": 0, "error": None, "bins": [], "ci95": None, "error_if_calibrated": None
    }  # fmt: skip
