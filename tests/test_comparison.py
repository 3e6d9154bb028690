"""Comparisons pair questions, refuse what is not alike, and say where two models differ; so do tables of drops."""

from __future__ import annotations

import pytest

from cinetune import comparison, drops, metrics
from cinetune.comparison import Evaluation
from conftest import sentence
from test_metrics import make_predictions
from test_statistics import rotated

pytestmark = pytest.mark.evaluation

SAMPLES, SEED = 200, 3


def evaluated(name, rows, parsers="p", **summary):
    made = metrics.summarise(rows, name, "CinePile-mini", "test", "none", SAMPLES, SEED)
    return Evaluation(name, rows, {**made, **summary}, {"parsers_hash": parsers})


@pytest.fixture(scope="module")
def pair():
    rows = [make_predictions(skill=skill, seed=seed) for skill, seed in ((0.1, 1), (0.7, 2))]
    linked = [table.assign(url="https://example.org/a?b=<c>", question="Who <b>is</b> it?") for table in rows]
    return [evaluated("base", linked[0]), evaluated("finetuned", linked[1])]


def test_the_difference_is_of_the_later_less_the_first(pair):
    measured = comparison.measure(pair, "logit", SAMPLES, SEED, "clips")
    found = measured["differences"]["finetuned"]["overall"]
    accuracy = {name: content["overall"]["accuracy"] for name, content in measured["models"].items()}
    assert measured["against"] == "base"
    assert found["difference"] == pytest.approx(accuracy["finetuned"] - accuracy["base"])
    assert found["ci95"][0] > 0 and found["p_value"] < 0.001
    wider = comparison.measure(pair, "logit", SAMPLES, SEED, "films")["differences"]["finetuned"]["overall"]
    assert wider["difference"] == found["difference"] and wider["ci95"] != found["ci95"]


def test_disagreements_add_up_with_the_counts_of_the_test(pair):
    base, finetuned = pair
    rows = comparison.disagreements(finetuned, base, "logit")
    found = metrics.compare(finetuned.predictions, base.predictions, "logit", 10, 0)["overall"]
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


def test_the_report_links_clips_and_keeps_markup_out(pair, tmp_path):
    measured = comparison.measure(pair, "logit", SAMPLES, SEED, "clips")
    comparison.write(tmp_path, pair, measured, ["they differ in x."], "v1", lambda url: url)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert '<a href="https://example.org/a?b=%3Cc%3E">' in page and "<b>is" not in page
    for words in ("finetuned against base", "disagree", "they differ in x.", "not comparable", "parsers_hash"):
        assert words in page
    assert "https://example.org/a?b=%3Cc%3E" in (tmp_path / "report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("url", ["javascript:alert(1)", "data:text/html,x", "JavaScript:x"])
def test_a_link_that_could_run_something_leads_nowhere(pair, tmp_path, url):
    changed = [evaluated(e.name, e.predictions.assign(url=url)) for e in pair]
    measured = comparison.measure(changed, "logit", 10, SEED, "clips")
    comparison.write(tmp_path, changed, measured, [], "none", lambda url: url)
    assert "<a " not in (tmp_path / "report.html").read_text(encoding="utf-8")
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert text.count("](<") == text.count("![") == 2, "two pictures, and no link"


# ---- drops


def test_a_drop_is_the_plain_accuracy_less_the_ablated_one():
    tables = {"none": make_predictions(skill=0.8, seed=2), "neither": make_predictions(skill=0.0, seed=4)}
    tables = {name: rows.assign(rotation=0) for name, rows in tables.items()}
    summaries = {name: metrics.summarise(rows, "m", "d", "test", name, SAMPLES, SEED) for name, rows in tables.items()}
    measured = drops.measure(tables, summaries, SAMPLES, SEED, "clips")
    found = measured["ablations"]["neither"]
    accuracy = [summaries[name]["scorers"]["logit"]["overall"]["accuracy"] for name in ("none", "neither")]
    assert found["drop"]["overall"]["difference"] == pytest.approx(accuracy[0] - accuracy[1])
    assert found["drop"]["overall"]["ci95"][0] > 0.3
    assert measured["rotations"] is None
    figures = drops.figures(measured)
    assert figures["drop/neither"] == found["drop"]["overall"]["difference"] and "drop/neither/temp" in figures
    assert f"{100 * figures['drop/neither']:+.1f} (" in drops.console(measured)


def test_rotations_are_judged_together_with_the_plain_evaluation():
    names = ("none", "rotation_1", "rotation_2", "rotation_3", "rotation_4")
    tables = {name: rotated(k, lambda place, k: (place - k) % 5) for k, name in enumerate(names)}
    summaries = {name: metrics.summarise(rows, "m", "d", "test", name, SAMPLES, SEED) for name, rows in tables.items()}
    measured = drops.measure(tables, summaries, SAMPLES, SEED, "clips")
    assert measured["rotations"]["logit"]["consistent"] == 1.0
    assert measured["rotations"]["strict"]["consistent"] == 0.0, "a reply that nobody can read agrees with nothing"
    assert all(content["drop"]["overall"]["difference"] == 0 for content in measured["ablations"].values())
    assert drops.figures(measured)["rotations/consistent"] == 1.0
    assert [section.title for section in drops.sections(measured)] == [
        "What is lost",
        "Does the place of an option matter?",
    ]
