"""Who becomes champion and why."""

from __future__ import annotations

import pandas as pd
import pytest

from builders.predictions import predictions
from cinetune.evaluation import promotion

pytestmark = pytest.mark.serving


def judged(ours: pd.DataFrame, theirs: pd.DataFrame, margin: float = 0.03) -> promotion.Verdict:
    return promotion.judge(ours, theirs, "3", margin, 500, 7)


def test_a_better_or_equal_model_passes_and_a_worse_one_does_not() -> None:
    champion = predictions(0.5)
    assert judged(champion, champion).has_earned
    better = judged(predictions(0.8), champion)
    assert better.has_earned and "ruled out" in better.reason and "version 3 on the same 400 questions" in better.reason
    worse = judged(predictions(0.3), champion)
    assert not worse.has_earned and "a loss of more than 3 points is not ruled out" in worse.reason


def test_a_loss_that_a_small_test_cannot_exclude_does_not_pass() -> None:
    ours, theirs = predictions(0.5, seed=1, n=40), predictions(0.5, seed=2, n=40)
    assert not judged(ours, theirs).has_earned
    assert judged(ours, theirs, margin=0.9).has_earned


def test_only_the_same_questions_are_compared() -> None:
    champion = predictions(0.5)
    part = judged(predictions(0.9).iloc[:100], champion)
    assert not part.has_earned and "300 questions were answered by only one" in part.reason
    foreign = judged(predictions(0.9).assign(gold="C"), champion)
    assert not foreign.has_earned and "cannot be compared with version 3" in foreign.reason
