"""Two options, three, six and none, in one pack: each question has its own letters, and is scored by its own chance."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from builders.packs import SUBTITLES, make_tiny
from builders.refusals import sentence
from cinetune.evaluation import ablations, metrics, predictions
from cinetune.evaluation.paired import agreement_of_rotations, compare
from cinetune.inference.replies import collect, reply_to_clip
from cinetune.inference.scoring import QuestionPrompt, choose, reply
from cinetune.model import planning
from cinetune.model.encoder import Encoder
from cinetune.task.description import LETTERS, Task
from cinetune.task.questions import ClipQuestions, Question
from cinetune.training.dataset import Packs
from cinetune.training.loss import letter_accuracy

pytestmark = pytest.mark.evaluation

TASK = Task(group="camera", open_questions=True)
# The tiny tokenizer has no token for the letters behind F.
COUNTS = (2, 3, 6, 0)
Tiny = tuple[torch.nn.Module, Encoder]


def question(count: int) -> Question:
    options = tuple(f"place {number}" for number in range(count))
    words = "" if count else "by the gate"
    return Question(f"clip-{count:03d}", "Where is it?", options, count - 1, words=words)


CLIP = ClipQuestions("clip", "yard", SUBTITLES, tuple(question(count) for count in COUNTS))


@pytest.fixture(scope="module")
def tiny() -> Tiny:
    model, encoder = make_tiny(0)
    return model, dataclasses.replace(encoder, task=TASK)


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def tables(tiny: Tiny, frames: np.ndarray) -> dict[str, pd.DataFrame]:
    names = ("none", "rotation_1", "rotation_3")
    replies = reply_to_clip(*tiny, CLIP, frames, names, 8, 3)
    return collect([CLIP], {"clip": replies}, {}, names, TASK)


def test_a_question_has_the_shares_among_its_own_letters_that_it_has_alone(tiny: Tiny, frames: np.ndarray) -> None:
    asked = [QuestionPrompt(item.text, item.options) for item in CLIP.questions]
    together = reply(*tiny, SUBTITLES, frames, asked, 3)
    chosen = next(choose(*tiny, [(SUBTITLES, frames, asked)]))
    for item, prompt, other in zip(together, asked, chosen, strict=True):
        (alone,) = reply(*tiny, SUBTITLES, frames, [prompt], 3)
        assert item.raw == alone.raw
        if prompt.choices is None:
            assert item.probabilities is None and item.letter is None and other.probabilities is None
            continue
        assert len(item.probabilities) == len(prompt.choices) and sum(item.probabilities) == pytest.approx(1)
        np.testing.assert_allclose(item.probabilities, alone.probabilities, atol=1e-5)
        np.testing.assert_allclose(item.probabilities, other.probabilities, atol=1e-5)
        assert item.letter_mass == pytest.approx(alone.letter_mass, rel=1e-3)
        assert item.letter in LETTERS[: len(prompt.choices)]


def test_predictions_hold_each_questions_own_letters_and_go_through_a_file(
    tables: dict[str, pd.DataFrame], tmp_path: Path
) -> None:
    table = tables["none"]
    assert list(table["num_choices"]) == list(COUNTS) and list(table["camera"].unique()) == ["yard"]
    assert list(table["gold"]) == ["B", "C", "F", None] and list(table["words"]) == ["", "", "", "by the gate"]
    held = table[[f"p_{letter}" for letter in LETTERS]].notna().sum(axis=1)
    assert list(held) == list(COUNTS)
    table.to_parquet(tmp_path / "made.parquet")
    again = predictions.read(tmp_path / "made.parquet", [CLIP], TASK)
    pd.testing.assert_frame_equal(again, table)


def test_open_questions_are_part_of_no_accuracy_and_chance_is_that_of_the_questions(
    tables: dict[str, pd.DataFrame],
) -> None:
    summary = metrics.summarise(tables["none"], "m", "Yard", "test", None, 20, 0, "groups", task=TASK)
    scores = summary["scorers"]["logit"]
    assert scores["overall"]["n"] == 3 and scores["categories"] == {} and "hard_split" not in scores
    assert summary["chance"] == pytest.approx((1 / 2 + 1 / 3 + 1 / 6) / 3)
    assert summary["open"]["n"] == 1 and summary["open"]["exact"]["n"] == 1
    assert summary["resampled"] == "cameras" and list(summary["gold_letters"]) == [*LETTERS, "none"]
    assert summary["calibration"]["n"] == 3
    assert Task.model_validate(summary["task"]) == TASK
    named = metrics.mlflow_metrics(summary)
    assert named["test/chance"] == summary["chance"] and named["test/open/n"] == 1
    assert not any(name.endswith(("hard", "needs_picture")) for name in named)


def test_a_rotation_of_few_options_goes_round(tables: dict[str, pd.DataFrame]) -> None:
    """Three places on, two options are the other way round and three are as they were."""
    plain, moved = tables["none"].set_index("num_choices"), tables["rotation_3"].set_index("num_choices")
    assert moved.loc[2, "gold"] == "A" and moved.loc[3, "gold"] == plain.loc[3, "gold"]
    assert moved.loc[3, "raw"] == plain.loc[3, "raw"] and moved.loc[6, "gold"] == "C"
    assert compare(tables["none"], tables["rotation_1"], "logit", 20, 0, task=TASK)["overall"]["n"] == 3
    assert agreement_of_rotations(tables, "logit", TASK)["n"] == 3


def test_a_baseline_guesses_among_each_questions_options() -> None:
    table = predictions.baseline("random", [CLIP], 3, TASK)
    for letter, count in zip(table["logit"], COUNTS, strict=True):
        assert letter is None if count == 0 else letter in LETTERS[:count]


def test_open_questions_are_taught_in_words_and_judge_no_adapter(tiny: Tiny, frames: np.ndarray) -> None:
    model, encoder = tiny
    packs = Packs([CLIP], encoder, lambda _: frames, 8, in_words=2, shuffle_seed=1)
    item = packs[0]
    taught = [encoder.decode(item.targets[item.owners == owner]) for owner in range(item.num_questions)]
    assert taught[3] == "by the gate" and all(word.startswith("place") for word in taught[4:]) and len(taught) == 6
    assert len(item) == packs.plan.tokens
    assert set(letter_accuracy(model, packs)) == {"accuracy"}


def test_letters_that_a_tokenizer_lacks_are_needed_only_where_a_question_has_them(tiny: Tiny) -> None:
    _, encoder = tiny
    few = dataclasses.replace(CLIP, questions=CLIP.questions[:2])
    assert planning.plan([few], encoder, 8, 4096).questions == 2
    assert len(encoder.letters(6)) == 6
    assert "A to J" in sentence(encoder.letters)


def test_ablations_are_those_that_change_something() -> None:
    four = Task(min_choices=4, max_choices=4, subtitles=False)
    assert ablations.read_names("all", four) == (
        "neither", "one_frame", "shuffled", "rotation_1", "rotation_2", "rotation_3",
    )  # fmt: skip
