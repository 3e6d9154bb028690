"""Who becomes champion and why."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from builders.predictions import predictions
from cinetune import params
from cinetune.evaluation import promotion
from cinetune.task.description import CINEPILE

pytestmark = pytest.mark.serving


def judged(ours: pd.DataFrame, theirs: pd.DataFrame, resample: str = "clips", **rules: float) -> promotion.Verdict:
    chosen = params.load().override("register", rules)
    chosen = chosen.override("evaluate", {"resample": resample, "bootstrap_samples": 50})
    return promotion.judge(ours, theirs, "3", chosen.register, chosen.evaluate)


def answers(right: np.ndarray, categories: np.ndarray | None = None, **scorers: np.ndarray) -> pd.DataFrame:
    """Predictions of clips [n, questions]; those of `scorers` differ from `right`."""
    rows = predictions(0.5, n=right.size)
    questions = right.shape[1]
    rows["clip_id"] = [f"c{number // questions}" for number in range(right.size)]
    rows["film"] = [f"f{number // questions // 3}" for number in range(right.size)]
    rows["logit"] = rows["lenient"] = np.where(right.ravel(), "A", "B")
    if categories is not None:
        rows["category"] = np.array(list(CINEPILE.shorts))[categories.ravel()]
    return rows.assign(**{name: np.where(values.ravel(), "A", "B") for name, values in scorers.items()})


def pair_of_models(clips: int, loss: float, generator: np.random.Generator) -> list[pd.DataFrame]:
    """Challenger and champion, 16 questions a clip, each with skills of its own for a clip."""
    skill = generator.beta(6, 3, size=(clips, 1))
    shift = 0.1 * generator.choice([-1, 1], size=(clips, 1))
    chances = np.clip(skill + shift / 2 - loss, 0, 1), np.clip(skill - shift / 2, 0, 1)
    return [answers(generator.random((clips, 16)) < chance) for chance in chances]


def test_a_better_or_equal_model_passes_and_a_worse_one_does_not() -> None:
    champion = predictions(0.5)
    assert judged(champion, champion).has_earned
    better = judged(predictions(0.8), champion)
    assert better.has_earned and "ruled out" in better.reason and "version 3 on the same 400 questions" in better.reason
    worse = judged(predictions(0.3), champion)
    assert not worse.has_earned and "a loss of more than 3 points is not ruled out" in worse.reason


def test_a_loss_that_a_small_test_cannot_exclude_does_not_pass() -> None:
    ours, theirs = predictions(0.5, seed=1, n=100), predictions(0.5, seed=2, n=100)
    assert not judged(ours, theirs).has_earned
    assert judged(ours, theirs, margin=0.9).has_earned


@pytest.mark.parametrize(("clips", "loss"), [(2, 0.05), (2, 0.0), (90, 0.05)])
def test_a_model_five_points_worse_is_champion_in_at_most_one_run_of_twenty(clips: int, loss: float) -> None:
    generator = np.random.default_rng(3)
    trials = 40 if clips > 2 else 10
    earned = [judged(*pair_of_models(clips, loss, generator)).has_earned for _ in range(trials)]
    assert np.mean(earned) <= (0.05 if clips > 2 else 0)


def test_too_few_clips_or_films_say_how_many_there_are() -> None:
    few = judged(predictions(0.9, n=90), predictions(0.5, n=90))
    assert not few.has_earned and "compared on 9 clips, and register.min_clips asks for 10" in few.reason
    assert judged(predictions(0.9, n=90), predictions(0.5, n=90), min_clips=9).has_earned
    films = judged(predictions(0.9, n=200), predictions(0.5, n=200), "films")
    assert not films.has_earned and "compared on 7 films" in films.reason


def test_one_clip_decides_nothing() -> None:
    one = answers(np.ones((1, 16), dtype=bool))
    assert not judged(one, one, min_clips=1).has_earned


def test_a_category_may_not_be_sacrificed_for_the_average() -> None:
    category = np.arange(16 * 90).reshape(90, 16) % 5
    champion = np.arange(16 * 90).reshape(90, 16) % 10 < 7
    ours = np.where(category == 3, champion & (np.arange(90) % 2 > 0)[:, None], champion | (category == 4))
    found = judged(answers(ours, category), answers(champion, category))
    assert not found.has_earned
    assert found.reason.startswith("Temporal -25.0 points (") and "10 points in a category" in found.reason
    assert judged(answers(ours, category), answers(champion, category), category_margin=0.4).has_earned


def test_words_may_not_be_lost_for_letters() -> None:
    champion = np.arange(16 * 90).reshape(90, 16) % 10 < 7
    spoken = champion & (np.arange(16) > 1)
    found = judged(answers(champion, lenient=spoken), answers(champion))
    assert not found.has_earned and "by lenient" in found.reason and "is not ruled out" in found.reason


def test_only_the_same_questions_are_compared_and_most_of_them() -> None:
    champion = predictions(0.5)
    part = judged(predictions(0.9).iloc[:100], champion)
    assert not part.has_earned and part.needs_answers
    assert "100 of 400 questions were put to both it and version 3" in part.reason
    assert "register.min_shared asks for 80%" in part.reason
    assert judged(predictions(0.9).iloc[:200], champion, min_shared=0.5).has_earned
    none = judged(predictions(0.9).iloc[:100], champion.iloc[100:], min_shared=0.01)
    assert not none.has_earned and none.needs_answers
    foreign = judged(predictions(0.9).assign(gold="C"), champion)
    assert not foreign.has_earned and "cannot be compared with version 3" in foreign.reason
    gone = np.arange(400) >= 200
    ours, theirs = (rows.assign(status=np.where(gone, "missing_clip", "ok")) for rows in (predictions(0.9), champion))
    missing = judged(ours, theirs)
    assert not missing.has_earned and "50% of the questions are missing" in missing.reason
    said = judged(ours, theirs, max_missing=0.6)
    assert said.has_earned and "(50% are missing in both)" in said.reason


def digested(rows: pd.DataFrame, texts: list[str]) -> pd.DataFrame:
    return rows.assign(question_digest=texts)


def test_a_champion_is_compared_on_the_shared_questions_and_the_others_are_told() -> None:
    texts = [f"text{number}" for number in range(400)]
    champion = digested(predictions(0.5), texts)
    # A tenth of the texts was repaired, as in the data's next version.
    repaired = [f"{text} repaired" if number % 10 == 0 else text for number, text in enumerate(texts)]
    found = judged(digested(predictions(0.9), repaired), champion)
    assert found.has_earned and not found.needs_answers
    assert "on the same 360 questions (80 more were put to one of them only)" in found.reason


def test_a_question_is_the_same_whatever_its_place_among_those_of_its_clip() -> None:
    """A row that was added before the others gives them other ids."""
    texts = [f"text{number}" for number in range(400)]
    champion = digested(predictions(0.5), texts)
    moved = digested(predictions(0.9), texts).assign(question_id=[f"q{number + 1}" for number in range(400)])
    found = judged(moved, champion)
    assert found.has_earned and "on the same 400 questions, " in found.reason
    twice = digested(predictions(0.9), ["same"] * 400)
    assert "on the same 400 questions, " in judged(twice, digested(predictions(0.5), ["same"] * 400)).reason
