"""The statistics are those of scipy and scikit-learn, where these have them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.calibration import calibration_curve

from builders.predictions import make_predictions, rotated
from builders.refusals import sentence
from cinetune.evaluation import metrics, statistics
from cinetune.evaluation.paired import agreement_of_rotations, compare

pytestmark = pytest.mark.evaluation


def make_answers(seed, n=600, clips=40):
    generator = np.random.default_rng(seed)
    of_clip = generator.integers(clips, size=n)
    skill = generator.uniform(0.2, 0.7, size=clips)[of_clip]
    return generator.random(n) < skill, generator.random(n) < skill - 0.05, of_clip


@pytest.mark.parametrize("seed", range(5))
def test_mcnemar_is_scipys_binomial_test(seed):
    a, b, _ = make_answers(seed)
    found = statistics.mcnemar(a, b)
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    assert (found["only_a"], found["only_b"]) == (only_a, only_b)
    assert found["p_value"] == pytest.approx(stats.binomtest(only_a, only_a + only_b).pvalue, rel=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_the_interval_is_scipys_percentile_bootstrap_of_a_ratio_over_clips(seed):
    a, b, clips = make_answers(seed)
    for values, ours in (
        (a.astype(float), statistics.accuracy(a, clips, 8000, 1)["ci95"]),
        (a.astype(float) - b, statistics.paired_difference(a, b, clips, 8000, 1)["ci95"]),
    ):
        sums, counts = np.bincount(clips, weights=values), np.bincount(clips)
        theirs = stats.bootstrap(
            (sums, counts),
            lambda s, c, axis=-1: s.sum(axis) / c.sum(axis),
            paired=True,
            vectorized=True,
            n_resamples=8000,
            method="percentile",
            rng=np.random.default_rng(2),
        ).confidence_interval
        assert ours == pytest.approx([theirs.low, theirs.high], abs=0.005)


def test_an_interval_holds_the_truth_nineteen_times_in_twenty():
    generator = np.random.default_rng(0)
    held, trials = 0, 300
    for _ in range(trials):
        skill = generator.beta(4, 5, size=60)
        correct = generator.random((60, 10)) < skill[:, None]
        low, high = statistics.accuracy(correct.ravel(), np.repeat(np.arange(60), 10), 400, 1)["ci95"]
        held += low <= 4 / 9 <= high
    assert 0.91 < held / trials < 0.98


def test_calibration_bins_are_scikit_learns():
    generator = np.random.default_rng(3)
    confidence = generator.uniform(0.2, 1, 2000)
    correct = generator.random(2000) < confidence**2
    rows = statistics.calibration(confidence, correct, 10)
    accuracy, mean = calibration_curve(correct, confidence, n_bins=10, strategy="uniform")
    np.testing.assert_allclose([row["accuracy"] for row in rows], accuracy)
    np.testing.assert_allclose([row["confidence"] for row in rows], mean)
    weights = np.array([row["n"] for row in rows]) / 2000
    error = statistics.expected_calibration_error(confidence, correct, 10)
    assert error == pytest.approx((weights * np.abs(accuracy - mean)).sum())


def test_whole_films_can_be_resampled_and_the_summary_says_so():
    rows = make_predictions(num_clips=24)
    # Clips of one film stand and fall together, so films are fewer and their interval is wider.
    by_film = rows["film"].map({film: number % 2 == 0 for number, film in enumerate(rows["film"].unique())})
    rows["logit"] = rows["gold"].where(by_film, "none")
    rows.loc[rows["status"] != "ok", "logit"] = None
    widths = []
    for resample in ("clips", "films"):
        summary = metrics.summarise(rows, "m", "d", "s", None, 2000, 1, resample)
        low, high = summary["scorers"]["logit"]["overall"]["ci95"]
        widths.append(high - low)
        assert summary["resampled"] == resample
    assert widths[1] / widths[0] == pytest.approx(np.sqrt(2), rel=0.1)
    bare = rows.drop(columns="film")
    assert "'film'" in sentence(lambda: metrics.summarise(bare, "m", "d", "s", None, 20, 1, "films"))


def test_missing_questions_bound_the_accuracy_over_all():
    scores = metrics.summarise(make_predictions(), "m", "d", "s", None, 50, 1, published_average=0.5)
    overall = scores["scorers"]["logit"]["overall"]
    limits = scores["scorers"]["logit"]["bounds"]
    assert limits == {
        "missing_wrong": overall["correct"] / 120,
        "missing_right": (overall["correct"] + 10) / 120,
        "missing_as_published": (overall["correct"] + 5) / 120,
    }
    assert limits["missing_wrong"] < overall["accuracy"] < limits["missing_right"]
    assert scores["missing"] == [{"clip_id": "clip11", "questions": 10, "reason": "missing_clip"}]
    unpublished = metrics.summarise(make_predictions(), "m", "d", "s", None, 50, 1)
    assert unpublished["scorers"]["logit"]["bounds"]["missing_as_published"] is None


def test_genres_and_decades_are_broken_down_where_the_rows_have_them():
    rows = make_predictions()
    bare = metrics.summarise(rows, "m", "d", "s", None, 20, 1)["scorers"]["logit"]
    assert bare["genre"] == {} == bare["decade"]
    generator = np.random.default_rng(0)
    rows["genres"] = generator.choice(["Drama", "Drama|Crime", ""], len(rows))
    rows["year"] = pd.array(generator.choice([1989, 1990, 1999], len(rows)), dtype="Int64")
    rows.loc[0, "year"] = pd.NA
    scores = metrics.summarise(rows, "m", "d", "s", None, 20, 1)["scorers"]["logit"]
    seen = rows[rows["status"] == "ok"]
    assert list(scores["genre"]) == ["Crime", "Drama"] and list(scores["decade"]) == ["1980s", "1990s"]
    assert scores["genre"]["Crime"]["n"] == (seen["genres"] == "Drama|Crime").sum()
    assert scores["genre"]["Drama"]["n"] == (seen["genres"] != "").sum()
    assert sum(part["n"] for part in scores["decade"].values()) == len(seen) - 1


def test_a_category_that_is_absent_is_there_with_no_questions():
    rows = make_predictions()
    rows = rows[rows["category"] != "Temporal"]
    scores = metrics.summarise(rows, "m", "d", "s", None, 20, 1)["scorers"]["logit"]
    assert scores["categories"]["temp"] == {"n": 0, "correct": 0, "accuracy": None, "ci95": None}
    assert compare(rows, rows, "logit", 20, 1)["categories"]["temp"]["difference"] is None


def test_nothing_depends_on_the_order_of_the_rows():
    rows = make_predictions()
    shuffled = rows.sample(frac=1, random_state=1)
    arguments = ("m", "d", "s", None, 200, 1)
    assert metrics.summarise(rows, *arguments) == metrics.summarise(shuffled, *arguments)
    other = make_predictions(seed=5)
    assert compare(rows, other, "logit", 200, 1) == compare(shuffled, other, "logit", 200, 1)


def test_who_goes_by_content_agrees_with_itself_and_who_goes_by_place_does_not():
    by_content = {str(k): rotated(k, lambda place, k: (place - k) % 5) for k in range(5)}
    found = agreement_of_rotations(by_content, "logit")
    assert (found["n"], found["consistent"], found["pairs_agreeing"]) == (40, 1.0, 1.0)
    assert all(share == pytest.approx(0.2) for share in found["places"].values())
    by_place = {str(k): rotated(k, lambda place, k: 2) for k in range(5)}
    found = agreement_of_rotations(by_place, "logit")
    assert (found["consistent"], found["pairs_agreeing"], found["places"]["C"]) == (0.0, 0.0, 1.0)


def test_a_rotated_question_is_paired_with_itself():
    plain, turned = rotated(0, lambda place, k: place), rotated(3, lambda place, k: 0)
    result = compare(plain, turned, "logit", 20, 1)["overall"]
    assert result["n"] == 40 and result["only_b"] == 0 and result["only_a"] > 20
    assert "right option" in sentence(lambda: compare(plain, turned.assign(rotation=0), "logit", 20, 1))
