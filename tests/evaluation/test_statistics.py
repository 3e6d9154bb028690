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
    assert found["mcnemar_p_value"] == pytest.approx(stats.binomtest(only_a, only_a + only_b).pvalue, rel=1e-9)


def test_the_interval_of_single_questions_is_scipys_wilson_interval():
    for right in (20, 150, 390):
        score = statistics.accuracy(np.arange(400) < right, np.arange(400))
        wilson = stats.binomtest(right, 400).proportion_ci(0.95, "wilson")
        # Student's t of few errors is a little above the normal quantile.
        assert score["ci95"] == pytest.approx([wilson.low, wilson.high], abs=0.002)


def simulated(clips, accuracy, correlation, generator, questions=16):
    skill = np.full(clips, accuracy)
    if correlation:
        spread = 1 / correlation - 1
        skill = generator.beta(accuracy * spread, (1 - accuracy) * spread, size=clips)
    return (generator.random((clips, questions)) < skill[:, None]).ravel(), np.repeat(np.arange(clips), questions)


@pytest.mark.parametrize(
    ("clips", "accuracy", "correlation"),
    [(10, 0.5, 0.2), (10, 0.98, 0.2), (10, 0.9, 0.0), (30, 0.98, 0.2), (100, 0.8, 0.1)],
)
def test_an_interval_holds_the_truth_nineteen_times_in_twenty(clips, accuracy, correlation):
    generator = np.random.default_rng(0)
    found = [statistics.accuracy(*simulated(clips, accuracy, correlation, generator))["ci95"] for _ in range(400)]
    assert min(high - low for low, high in found) > 0
    # Two standard errors of 400 trials lie between 95 and 93 %.
    assert np.mean([low <= accuracy <= high for low, high in found]) >= 0.93


def paired_answers(clips, effect, generator, questions=16):
    """Two models that are equally good on the whole; `effect`: how much better either is on one clip or another."""
    skill = generator.uniform(0.3, 0.7, size=(clips, 1))
    shift = effect * generator.choice([-1, 1], size=(clips, 1))
    a, b = (generator.random((clips, questions)) < skill + sign * shift / 2 for sign in (1, -1))
    return a.ravel(), b.ravel(), np.repeat(np.arange(clips), questions)


@pytest.mark.parametrize(("clips", "effect"), [(10, 0.2), (90, 0.4)])
def test_a_difference_holds_its_level_where_models_suit_different_clips(clips, effect):
    generator = np.random.default_rng(1)
    covered, false_alarms, mcnemar = 0, 0, 0
    trials = 400
    for _ in range(trials):
        a, b, of_clip = paired_answers(clips, effect, generator)
        low, high = statistics.paired_difference(a, b, of_clip)["ci95"]
        covered += low <= 0 <= high
        false_alarms += statistics.sign_flip(a, b, of_clip, 500, 1)["p_value"] <= 0.05
        mcnemar += statistics.mcnemar(a, b)["mcnemar_p_value"] <= 0.05
    assert covered / trials >= 0.92 and false_alarms / trials <= 0.075
    assert mcnemar > false_alarms


def test_a_sign_flip_over_single_questions_is_mcnemars_test():
    a, b = np.arange(100) < 40, np.arange(100) >= 75
    exact = statistics.mcnemar(a, b)["mcnemar_p_value"]
    assert statistics.sign_flip(a, b, np.arange(100), 20000, 1)["p_value"] == pytest.approx(exact, abs=0.01)


def test_holm_is_the_smallest_times_all_the_next_times_one_fewer():
    assert statistics.holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert statistics.holm([0.9, 0.8]) == [1.0, 1.0] and statistics.holm([]) == []


def test_five_equal_categories_raise_an_alarm_in_five_reports_of_a_hundred():
    generator = np.random.default_rng(2)
    values = generator.random((2000, 5))
    assert np.mean(values.min(axis=1) <= 0.05) > 0.2
    assert np.mean([min(statistics.holm(row)) <= 0.05 for row in values]) < 0.065


def test_calibration_bins_are_scikit_learns():
    generator = np.random.default_rng(3)
    confidence = generator.uniform(0.2, 1, 2000)
    correct = generator.random(2000) < confidence**2
    clips = np.arange(2000) // 16
    rows = statistics.calibration(confidence, correct, clips, 10)
    assert [row["ci95"] for row in rows] == [
        statistics.accuracy(correct[inside], clips[inside])["ci95"]
        for inside in (np.minimum((10 * confidence).astype(int), 9) == number for number in range(2, 10))
    ]
    accuracy, mean = calibration_curve(correct, confidence, n_bins=10, strategy="uniform")
    np.testing.assert_allclose([row["accuracy"] for row in rows], accuracy)
    np.testing.assert_allclose([row["confidence"] for row in rows], mean)
    weights = np.array([row["n"] for row in rows]) / 2000
    error = statistics.expected_calibration_error(confidence, correct, 10)
    assert error == pytest.approx((weights * np.abs(accuracy - mean)).sum())


def test_a_calibrated_model_shows_an_error_that_its_interval_takes_for_chance():
    generator = np.random.default_rng(4)
    clips = np.repeat(np.arange(60), 16)
    confidence = generator.uniform(0.3, 1, clips.size)
    calibrated = generator.random(clips.size) < confidence
    for correct, is_calibrated in ((calibrated, True), (generator.random(clips.size) < confidence - 0.2, False)):
        error = statistics.expected_calibration_error(confidence, correct, 10)
        found = statistics.calibration_uncertainty(confidence, correct, clips, 10, 300, 1)
        low, high = found["ci95"]
        assert low <= error <= high and found["error_if_calibrated"]["mean"] == pytest.approx(0.035, abs=0.01)
        assert (low == 0) is is_calibrated
        assert (error > found["error_if_calibrated"]["percentile_95"]) is not is_calibrated
    assert 0 < low < 0.2 < high
    assert statistics.calibration_uncertainty([], [], [], 10, 300, 1) == {"ci95": None, "error_if_calibrated": None}


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
    assert scores["categories"]["temp"] == {
        "n": 0, "correct": 0, "accuracy": None, "ci95": None, "few_clusters": False
    }  # fmt: skip
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
    # Right only where the right option stands at C.
    assert found["accuracy_by_place"] == {"A": 0.0, "B": 0.0, "C": 1.0, "D": 0.0, "E": 0.0}
    assert found["spread_by_place"] == 1.0


def test_a_rotated_question_is_paired_with_itself():
    plain, turned = rotated(0, lambda place, k: place), rotated(3, lambda place, k: 0)
    result = compare(plain, turned, "logit", 20, 1)["overall"]
    assert result["n"] == 40 and result["only_b"] == 0 and result["only_a"] > 20
    assert "right option" in sentence(lambda: compare(plain, turned.assign(rotation=0), "logit", 20, 1))
