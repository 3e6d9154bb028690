"""Comparisons pair questions, refuse what is not alike, and say where two models differ; so do tables of drops."""

from __future__ import annotations

import pytest

from builders.evaluations import SAMPLES, SEED, base_and_finetuned, evaluated
from builders.refusals import sentence
from cinetune.evaluation import comparison
from cinetune.evaluation.paired import compare

pytestmark = pytest.mark.evaluation


@pytest.fixture(scope="module")
def pair():
    return base_and_finetuned()


def test_the_difference_is_of_the_later_less_the_first(pair):
    measured = comparison.measure(pair, "logit", SAMPLES, SEED, "clips")
    found = measured["differences"]["finetuned"]["overall"]
    accuracy = {name: content["overall"]["accuracy"] for name, content in measured["models"].items()}
    assert measured["against"] == "base"
    assert found["difference"] == pytest.approx(accuracy["finetuned"] - accuracy["base"])
    assert found["ci95"][0] > 0 and found["p_value"] < 0.01 and found["mcnemar_p_value"] < 0.001
    wider = comparison.measure(pair, "logit", SAMPLES, SEED, "films")["differences"]["finetuned"]["overall"]
    assert wider["difference"] == found["difference"] and wider["p_value"] > found["p_value"]


def test_a_change_is_measured_under_each_scorer_that_both_have_replies_for(pair):
    base, finetuned = pair
    measured = comparison.measure(pair, "logit", SAMPLES, SEED, "clips")
    by_scorer = measured["differences_by_scorer"]["finetuned"]
    assert list(by_scorer) == ["strict", "lenient", "logit"]
    assert by_scorer["logit"] == measured["differences"]["finetuned"]
    assert by_scorer["strict"]["overall"]["difference"] == 0 != by_scorer["lenient"]["overall"]["difference"]
    logged = comparison.mlflow_metrics("finetuned", measured["differences"]["finetuned"], by_scorer)
    assert logged["difference/finetuned/lenient"] == by_scorer["lenient"]["overall"]["difference"]
    wordless = evaluated("base", base.predictions.assign(raw="", lenient=None, strict=None))
    measured = comparison.measure([wordless, finetuned], "logit", SAMPLES, SEED, "clips")
    assert list(measured["differences_by_scorer"]["finetuned"]) == ["logit"]


def test_categories_are_adjusted_for_their_number(pair):
    found = compare(pair[1].predictions, pair[0].predictions, "logit", SAMPLES, SEED)
    values = [(part["p_value"], part["p_value_holm"]) for part in found["categories"].values()]
    assert min(adjusted for _, adjusted in values) == pytest.approx(5 * min(value for value, _ in values))


def test_disagreements_add_up_with_the_counts_of_the_test(pair):
    base, finetuned = pair
    rows = comparison.disagreements(finetuned, base, "logit")
    found = compare(finetuned.predictions, base.predictions, "logit", 10, 0)["overall"]
    counts = rows["verdict"].value_counts()
    assert (counts["won"], counts["lost"]) == (found["only_a"], found["only_b"])
    won = rows[rows["verdict"] == "won"]
    assert (won["letter_a"] == won["gold"]).all() and (won["letter_b"] != won["gold"]).all()
    both_wrong = rows[rows["verdict"] == "both wrong, differently"]
    assert (both_wrong["letter_a"] != both_wrong["letter_b"]).all()
    assert not comparison.disagreements(base, base, "logit").size


@pytest.mark.parametrize(
    ("change", "kind", "named"),
    [
        (lambda e: evaluated(e.name, e.predictions, dataset="CinePile-v2"), "dataset", "'CinePile-v2'"),
        (lambda e: evaluated(e.name, e.predictions, split="train"), "split", "'train'"),
        (lambda e: evaluated(e.name, e.predictions.iloc[3:]), "questions", "3 questions"),
        (lambda e: evaluated(e.name, e.predictions, parsers="other"), "scorer", "parsers"),
        (lambda e: evaluated(e.name, e.predictions.assign(raw="", lenient=None)), "scorer", "no reply"),
    ],
)
def test_what_is_not_alike_is_refused_unless_it_is_allowed_by_name(pair, change, kind, named):
    other = change(pair[1])
    text = sentence(lambda: comparison.check_alike([pair[0], other], "lenient", ()))
    assert named in text and f"allow={kind}" in text and "'base'" in text
    (overlooked,) = comparison.check_alike([pair[0], other], "lenient", (kind,))
    assert named in overlooked


def test_the_parsers_do_not_matter_where_no_words_are_read(pair):
    other = evaluated("other", pair[1].predictions, parsers="newer")
    assert comparison.check_alike([pair[0], other], "logit", ()) == []


def test_one_evaluation_alone_and_an_unknown_allowance_are_refused(pair):
    assert "two evaluations" in sentence(lambda: comparison.check_alike(pair[:1], "logit", ()))
    assert "'model'" in sentence(lambda: comparison.read_allowed("split model"))
    assert comparison.read_allowed("split, questions") == ("split", "questions")
