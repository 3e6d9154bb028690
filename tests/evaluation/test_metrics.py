"""Accuracies carry their counts, and intervals that know which questions belong to one clip."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from builders.predictions import make_predictions
from cinetune.errors import InputError
from cinetune.evaluation import metrics, statistics
from cinetune.evaluation.paired import compare
from cinetune.task.description import CINEPILE

pytestmark = pytest.mark.evaluation

SAMPLES, SEED = 500, 3


def width(score: dict) -> float:
    return score["ci95"][1] - score["ci95"][0]


def test_category_keys_are_the_datasets_own_words():
    assert list(CINEPILE.shorts.values()) == ["crd", "npa", "sta", "temp", "th"]
    assert CINEPILE.shorts["Character and\nRelationship Dynamics"] == "crd"
    assert CINEPILE.titles["npa"] == "Narrative and Plot Analysis"


def test_accuracy_counts_what_is_right():
    score = statistics.accuracy([True, False, True, True], ["a", "a", "b", "b"])
    assert (score["n"], score["correct"], score["accuracy"]) == (4, 3, 0.75)
    low, high = score["ci95"]
    assert 0 < low < 0.75 < high < 1 and score["few_clusters"]


@pytest.mark.parametrize("is_right", [True, False])
def test_all_right_or_all_wrong_leaves_the_uncertainty_of_the_number_of_clips(is_right):
    score = statistics.accuracy([is_right] * 160, np.repeat(np.arange(10), 16))
    # Clopper and Pearson: with the other end this far away, ten alike happen in 2.5 % of samples.
    bound = 0.025 ** (1 / 10)
    assert score["ci95"] == pytest.approx([bound, 1] if is_right else [0, 1 - bound])


def test_identical_clips_are_no_surer_than_independent_questions():
    score = statistics.accuracy([True, False] * 20, np.repeat(np.arange(20), 2))
    assert score == statistics.accuracy([True, False] * 20, np.arange(40)) | {
        "ci95": score["ci95"],
        "few_clusters": True,
    }
    low, high = binomtest(20, 40).proportion_ci(0.95, "wilson")
    assert score["ci95"] == pytest.approx([low, high])


def test_questions_that_stand_and_fall_with_their_clip_widen_the_interval():
    per_clip = np.arange(40) % 2 == 0
    correct = np.repeat(per_clip, 10)
    by_clip = statistics.accuracy(correct, np.repeat(np.arange(40), 10))
    by_question = statistics.accuracy(correct, np.arange(400))
    # With wholly correlated clips of 10 questions the spread is sqrt(10) times as large.
    assert width(by_clip) / width(by_question) == pytest.approx(math.sqrt(10), rel=0.1)


def test_single_question_clips_give_the_textbook_interval():
    correct = np.arange(1000) < 450
    score = statistics.accuracy(correct, np.arange(1000))
    half = 1.96 * math.sqrt(0.45 * 0.55 / 1000)
    assert score["ci95"] == pytest.approx([0.45 - half, 0.45 + half], abs=0.004)


def test_the_interval_is_the_same_in_any_order():
    generator = np.random.default_rng(1)
    correct, clips = generator.random(200) < 0.4, generator.integers(30, size=200)
    order = generator.permutation(200)
    first = statistics.accuracy(correct, clips)
    assert statistics.accuracy(correct[order], clips[order]) == first


def test_no_questions_have_no_accuracy_and_one_clip_tells_little():
    nothing = {"n": 0, "correct": 0, "accuracy": None, "ci95": None, "few_clusters": False}
    assert statistics.accuracy([], []) == nothing
    low, high = statistics.accuracy([True, False] * 50, ["a"] * 100)["ci95"]
    assert low < 0.1 and high > 0.9
    assert statistics.paired_difference([True] * 9, [False] * 9, ["a"] * 9)["ci95"] == [0.0, 1.0]


def test_fewer_than_thirty_clips_are_called_few():
    for clips, is_few in ((29, True), (30, False)):
        right = np.arange(4 * clips) % 3 == 0
        of_clip = np.repeat(np.arange(clips), 4)
        assert statistics.accuracy(right, of_clip)["few_clusters"] is is_few
        assert statistics.paired_difference(right, ~right, of_clip)["few_clusters"] is is_few


def test_the_summary_has_the_form_of_metrics_json():
    summary = metrics.summarise(make_predictions(), "base", "mini", "test", None, SAMPLES, SEED)
    assert list(summary)[:7] == [
        "model", "dataset", "split", "ablation", "scorers", "clips_missing", "questions_missing",
    ]  # fmt: skip
    assert list(summary["scorers"]) == ["strict", "lenient", "logit"]
    for scores in summary["scorers"].values():
        assert set(scores) >= {"overall", "unparsed", "categories", "hard_split", "visual_reliance"}
        assert list(scores["categories"]) == ["crd", "npa", "sta", "temp", "th"]
        assert list(scores["hard_split"]) == ["True", "False"]
        assert list(scores["visual_reliance"]) == ["0", "1"]
        for part in [scores["overall"], *scores["categories"].values(), *scores["hard_split"].values()]:
            assert list(part) == ["n", "correct", "accuracy", "ci95", "few_clusters"]
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_parts_of_the_summary_add_up():
    scores = metrics.summarise(make_predictions(), "m", "d", "s", "none", SAMPLES, SEED)["scorers"]["logit"]
    for name in ("categories", "hard_split", "visual_reliance"):
        for count in ("n", "correct"):
            assert sum(part[count] for part in scores[name].values()) == scores["overall"][count]


def test_missing_clips_are_counted_and_not_scored():
    summary = metrics.summarise(make_predictions(), "m", "d", "s", "none", SAMPLES, SEED)
    assert (summary["clips_missing"], summary["questions_missing"]) == (1, 10)
    assert summary["scorers"]["logit"]["overall"]["n"] == 110
    assert summary["scorers"]["logit"]["unparsed"] == 0


def test_an_unparsed_reply_is_wrong_and_counted():
    scores = metrics.summarise(make_predictions(), "m", "d", "s", "none", SAMPLES, SEED)["scorers"]["strict"]
    assert scores["unparsed"] == 110
    assert scores["overall"]["accuracy"] == 0.0


def test_no_ablation_is_null_and_an_ablation_keeps_its_name():
    for given, written in ((None, None), ("none", None), ("no_frames", "no_frames")):
        summary = metrics.summarise(make_predictions(), "m", "d", "s", given, SAMPLES, SEED)
        assert summary["ablation"] == written


def test_an_odd_visual_reliance_is_unknown():
    predictions = make_predictions()
    predictions.loc[3, "visual_reliance"] = "nan"
    slices = metrics.summarise(predictions, "m", "d", "s", None, SAMPLES, SEED)["scorers"]["logit"]
    assert slices["visual_reliance"]["unknown"]["n"] == 1


def test_predictions_without_an_answered_question_still_make_a_summary():
    predictions = make_predictions().assign(status="missing_clip")
    summary = metrics.summarise(predictions, "m", "d", "s", None, SAMPLES, SEED)
    assert summary["scorers"]["logit"]["overall"]["ci95"] is None
    assert summary["questions_missing"] == 120


def test_the_summary_survives_parquet(tmp_path):
    predictions = make_predictions()
    predictions.to_parquet(tmp_path / "predictions.parquet")
    again = pd.read_parquet(tmp_path / "predictions.parquet")
    first = metrics.summarise(predictions, "m", "d", "s", None, SAMPLES, SEED)
    assert metrics.summarise(again, "m", "d", "s", None, SAMPLES, SEED) == first


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda rows: rows.assign(category="Temporal analysis"), "Temporal analysis"),
        (lambda rows: rows.drop(columns="logit"), "logit"),
        (lambda rows: rows.assign(question_id="twice"), "twice"),
        (lambda rows: rows.assign(gold=None), "clip00-00"),
    ],
)
def test_predictions_that_cannot_be_scored_are_refused_by_name(change, named):
    with pytest.raises(InputError, match=named):
        metrics.summarise(change(make_predictions()), "m", "d", "s", None, SAMPLES, SEED)


def test_a_paired_difference_is_sharper_than_two_intervals():
    clips = np.repeat(np.arange(50), 4)
    generator = np.random.default_rng(5)
    b = generator.random(200) < 0.4
    a = b | (generator.random(200) < 0.1)
    pair = statistics.paired_difference(a, b, clips)
    assert pair["n"] == 200
    assert pair["difference"] == pytest.approx(a.mean() - b.mean())
    assert 0 < pair["ci95"][0] <= pair["difference"] <= pair["ci95"][1]
    assert width(pair) < width(statistics.accuracy(a, clips))


def test_a_model_does_not_differ_from_itself_as_far_as_is_known():
    correct = np.arange(200) % 3 == 0
    pair = statistics.paired_difference(correct, correct, np.arange(200) // 10)
    assert pair["difference"] == 0 and pair["ci95"][1] == -pair["ci95"][0] == pytest.approx(0.0137, abs=0.001)
    assert statistics.mcnemar(correct, correct) == {"only_a": 0, "only_b": 0, "mcnemar_p_value": 1.0}
    assert statistics.sign_flip(correct, correct, np.arange(200) // 10, SAMPLES, SEED) == {"p_value": 1.0}


def test_mcnemar_is_the_exact_binomial_test():
    a = [True] * 9 + [False] + [True] * 5
    b = [False] * 9 + [True] + [True] * 5
    result = statistics.mcnemar(a, b)
    assert (result["only_a"], result["only_b"]) == (9, 1)
    assert result["mcnemar_p_value"] == pytest.approx(2 * (1 + 10) / 2**10)


def test_mcnemar_holds_for_thousands_of_questions():
    one, other = np.arange(4941) < 2600, np.arange(4941) >= 2600
    assert 0 < statistics.mcnemar(one, other)["mcnemar_p_value"] < 0.001


def test_calibration_error_is_zero_when_confidence_is_earned_and_large_when_not():
    assert statistics.expected_calibration_error([0.75] * 4, [True, True, True, False], 10) == pytest.approx(0)
    assert statistics.expected_calibration_error([1.0] * 4, [False] * 4, 10) == pytest.approx(1)
    mixed = statistics.expected_calibration_error([0.25] * 2 + [0.95] * 2, [False, True, True, True], 10)
    assert mixed == pytest.approx(0.5 * 0.25 + 0.5 * 0.05)
    assert statistics.expected_calibration_error([], [], 10) is None


def test_calibration_refuses_logits():
    with pytest.raises(InputError, match="probabilities"):
        statistics.calibration([3.2], [True], [0], 10)


def test_comparison_pairs_questions_by_id_and_counts_the_rest():
    better, worse = make_predictions(skill=0.9, seed=1), make_predictions(skill=0.1, seed=2)
    result = compare(better, worse.iloc[::-1].iloc[:-3], "logit", SAMPLES, SEED)
    assert result["overall"]["n"] == 107
    assert result["questions_unpaired"] == 3
    assert result["overall"]["difference"] > 0
    assert result["overall"]["only_a"] > result["overall"]["only_b"]
    assert sum(part["n"] for part in result["categories"].values()) == 107


def test_comparison_refuses_two_different_data_sets():
    other = make_predictions()
    other.loc[0, "gold"] = "A" if other.loc[0, "gold"] != "A" else "B"
    with pytest.raises(InputError, match="clip00-00"):
        compare(make_predictions(), other, "logit", SAMPLES, SEED)


def test_films_of_the_training_are_scored_apart_from_the_others():
    rows = make_predictions()
    plain = metrics.summarise(rows, "m", "d", "s", None, 20, 1)
    assert metrics.summarise(rows, "m", "d", "s", None, 20, 1, training_groups={"another (2001)"}) == plain
    scores = metrics.summarise(rows, "m", "d", "s", None, 20, 1, training_groups={"film1 (2001)"})["scorers"]["logit"]
    parts = scores["film_overlap"]
    assert parts["seen"]["n"] == 20 and parts["seen"]["n"] + parts["unseen"]["n"] == scores["overall"]["n"]
    assert parts["seen"]["correct"] + parts["unseen"]["correct"] == scores["overall"]["correct"]
