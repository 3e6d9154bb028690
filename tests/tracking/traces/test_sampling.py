"""Some questions of an evaluation are traces: the wrong ones first, with the film's frames and the data's answer."""

from __future__ import annotations

import mlflow
import pandas as pd
import pytest

from builders import trainings
from cinetune.evaluation import predictions
from cinetune.task.description import LETTERS
from cinetune.tracking import lifecycle
from cinetune.tracking.traces import sampling
from cinetune.tracking.traces.corrections import corrections

pytestmark = pytest.mark.experience

CLIPS = trainings.clips(3, 2, of="test")
NUM_QUESTIONS = 5


def table(num_right: int) -> pd.DataFrame:
    """The first so many are answered rightly, the last is of a clip that is missing."""
    rows = []
    asked = [(clip, question) for clip in CLIPS for question in clip.questions]
    for number, (clip, question) in enumerate(asked[:-1]):
        letter = LETTERS[question.answer if number < num_right else (question.answer + 1) % 5]
        shares = [0.6 if letter == other else 0.1 for other in LETTERS]
        rows.append(predictions.answered_row(clip, question, letter, shares))
    rows.append(predictions.missing_row(*asked[-1], "its frames were never made"))
    return predictions.as_table(rows)


def test_wrong_answers_come_first_and_the_choice_is_the_same_again() -> None:
    chosen = sampling.choose(table(num_right=3), 2, seed=7)
    assert list(chosen["question_id"]) == list(sampling.choose(table(num_right=3), 2, seed=7)["question_id"])
    assert list(chosen["logit"] == chosen["gold"]) == [False, True]
    assert len(sampling.choose(table(3), 100, seed=7)) == NUM_QUESTIONS - 1
    assert sampling.choose(table(3), 0, seed=7).empty


def test_they_are_listed_with_the_run_and_can_be_corrected(store: mlflow.MlflowClient) -> None:
    chosen = sampling.choose(table(num_right=0), 2, seed=7)
    with lifecycle.start("evaluate") as run:
        written = sampling.write_sample(chosen, CLIPS, trainings.frames_of, {"evaluated": "m"}, True, run.id)
    found = store.search_traces(locations=[run.experiment_id], run_id=run.id)
    assert {trace.info.trace_id for trace in found} == set(written)
    assert {trace.info.execution_duration for trace in found} == {0}
    source = mlflow.entities.AssessmentSource("HUMAN", "someone")
    mlflow.log_feedback(trace_id=written[0], name="answer", value="B", source=source)
    [row], _ = corrections()
    asked = {question.question_id: (clip, question) for clip in CLIPS for question in clip.questions}
    clip, question = asked[chosen.iloc[0]["question_id"]]
    assert (row["clip_id"], row["question"], row["answer_key"]) == (clip.clip_id, question.text, question.choices[1])
    assert row["question_category"] == question.category and row["movie_name"] in clip.group


def test_without_content_no_frames_are_asked_for(store: mlflow.MlflowClient) -> None:
    def none(clip_id: str) -> None:
        raise AssertionError(clip_id)

    with lifecycle.start("evaluate") as run:
        assert len(sampling.write_sample(sampling.choose(table(2), 1, 7), CLIPS, none, {}, False, run.id)) == 1
