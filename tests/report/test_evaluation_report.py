"""The report says what was measured, marks what was not, and is the same every time."""

from __future__ import annotations

import base64
import json
import re

import pandas as pd
import pytest

from builders.predictions import make_predictions
from cinetune.errors import InputError
from cinetune.evaluation import metrics
from cinetune.report import evaluation_report, formatting

pytestmark = pytest.mark.evaluation

SAMPLES, SEED = 200, 3
FILES = ["chart.png", "report.html", "report.md", "summary.json"]


@pytest.fixture(scope="module")
def evaluations():
    predictions = {
        "base": make_predictions(skill=0.1, seed=1),
        "finetuned": make_predictions(skill=0.7, seed=2),
    }
    summaries = {
        name: metrics.summarise(rows, name, "CinePile-mini", "test", "none", SAMPLES, SEED)
        for name, rows in predictions.items()
    }
    return summaries["base"], summaries["finetuned"], predictions["base"], predictions["finetuned"]


def write(folder, evaluations, reference="v1", card=None):
    evaluation_report.write(folder, *evaluations, reference, card, bootstrap_samples=SAMPLES, seed=SEED)
    return {name: (folder / name).read_bytes() for name in FILES}


@pytest.fixture(scope="module")
def written(tmp_path_factory, evaluations):
    card = {"open_accuracy": 0.912, "own_format_accuracy": 0.834, "format": "a number <1>"}
    return write(tmp_path_factory.mktemp("report"), evaluations, card=card)


@pytest.mark.parametrize(
    ("version", "model", "column", "percent"),
    [
        ("v1", "Video-LLaVA", "average", 22.51),
        ("v1", "GPT-4o", "npa", 74.08),
        ("v1", "Human (authors)", "temp", 100.0),
        ("v1", "MovieChat", "th", 4.21),
        ("v2", "Video-LLaVA 7B", "average", 25.72),
        ("v2", "LLaVA-OV 7B", "sta", 46.54),
    ],
)
def test_published_figures_stand_as_published(version, model, column, percent):
    rows = evaluation_report.published(version).set_index("model")
    assert rows.loc[model, column] == percent


def test_published_averages_are_micro_averages_of_the_test_set():
    # People answered a part of the test set, so their average weighs the categories otherwise.
    sizes = {"crd": 2068, "npa": 463, "sta": 1532, "temp": 688, "th": 190}
    rows = pd.concat([evaluation_report.published("v1"), evaluation_report.published("v2")])
    rows = rows[rows["kind"] != "human"]
    average = sum(rows[name] * size for name, size in sizes.items()) / sum(sizes.values())
    assert (average - rows["average"]).abs().max() < 0.05


def test_an_unknown_publication_is_refused():
    with pytest.raises(InputError, match="v1, v2"):
        evaluation_report.published("v3")


def test_the_markdown_table_has_the_published_form():
    row = {
        "model": "ours",
        "average": {"n": 9, "correct": 7, "accuracy": 0.783, "ci95": [0.759, 0.806]},
        "crd": 44.16,
    }
    lines = evaluation_report.markdown_table([row]).splitlines()
    assert lines[0].startswith("| Model | Average | Character and Relationship Dynamics |")
    assert lines[2] == "| ours | 78.3 (75.9–80.6) | 44.2 | – | – | – | – |"


def test_a_model_name_cannot_break_the_markdown_table():
    line = evaluation_report.markdown_table([{"model": "a|b<i>\n*c*", "average": 1.0}]).splitlines()[2]
    assert line.startswith(r"| a\|b&lt;i&gt; \*c\* | 1.0 |")


def test_the_console_table_lines_up_and_marks_published_rows_as_another_dataset(evaluations):
    base, finetuned = evaluations[:2]
    text = evaluation_report.console_table(base, finetuned, evaluation_report.published("v1"))
    rows = [line for line in text.splitlines() if re.match(r"(base|fine-tuned) ", line)]
    assert len(rows) == 4
    assert len({len(line) for line in rows[:2]}) == 1
    average = finetuned["scorers"]["logit"]["overall"]["accuracy"]
    assert f"{100 * average:.1f} (" in rows[1]
    heading = "CinePile v1, published; another dataset, other protocol: not comparable"
    assert text.index(heading) < text.index("GPT-4o")
    assert "Missing, and left out of every figure: 1 clip with 10 questions" in text
    assert "GPT-4o" not in evaluation_report.console_table(base, finetuned, None)


def test_scores_among_letters_that_the_model_would_hardly_say_are_marked(evaluations, tmp_path):
    base, finetuned, *predictions = evaluations
    predictions = [predictions[0].assign(letter_mass=2.4e-6), predictions[1].assign(letter_mass=0.98)]
    marked = [
        metrics.summarise(rows, summary["model"], "CinePile-mini", "test", "none", SAMPLES, SEED)
        for rows, summary in zip(predictions, (base, finetuned), strict=True)
    ]
    assert marked[0]["letter_mass"] == {"n": 110, "median": 2.4e-6, "below_limit": 1.0}
    text = evaluation_report.console_table(*marked, None)
    scores = [f"{100 * summary['scorers']['logit']['overall']['accuracy']:.1f}" for summary in marked]
    assert f"{scores[0]}† (" in text and f"{scores[1]} (" in text and f"{scores[1]}†" not in text
    assert "(base 0.0002 %)" in text and " 98.0 %" in text
    assert "(base 0.0002 %)" in write(tmp_path, (*marked, *predictions))["report.md"].decode()
    assert base["letter_mass"] is None and "†" not in evaluation_report.console_table(base, finetuned, None)


def test_on_cinepile_itself_published_rows_are_not_called_another_dataset(evaluations):
    base, finetuned = ({**summary, "dataset": "CinePile-v1"} for summary in evaluations[:2])
    text = evaluation_report.console_table(base, finetuned, evaluation_report.published("v1"))
    assert "another dataset" not in text
    assert "compare with care" in text


def test_the_report_covers_what_a_reader_asks(written):
    for name in ("report.md", "report.html"):
        text = written[name].decode()
        for title in (
            "By category",
            "Three ways to read an answer",
            "What the fine-tune changed",
            "Hard questions, and questions that need the picture",
            "Which letters are chosen",
            "Does it know when it is right?",
            "The base is not crippled",
            "Questions won and lost",
            "CinePile v1, published; another dataset",
        ):
            assert title in text
        assert "91.2 %" in text
        assert "1 clip with 10 questions" in text


def test_what_was_changed_stands_under_three_scorers_side_by_side(written):
    text = written["report.md"].decode()
    assert "| Category | Questions | Strict | Lenient | Logit |" in text
    changes = json.loads(written["summary.json"])["finetuned_minus_base_by_scorer"]
    row = next(line for line in text.splitlines() if line.startswith("| Average | 110 |"))
    for change in changes.values():
        assert f"{100 * change['overall']['difference']:+z.1f} (" in row


def test_what_rests_on_few_clips_is_marked_and_the_mark_explained(written):
    text = written["report.md"].decode()
    assert re.search(r"\| fine-tuned \| [\d.]+ \([\d.]+–[\d.]+\)\\?\*", text) and "means few clips" in text


def test_a_calibration_error_stands_beside_what_chance_makes_of_a_calibrated_model(written):
    text = written["report.md"].decode()
    said = (
        r"calibration error [\d.]+ points \([\d.]+ to [\d.]+\); a perfectly calibrated model would show [\d.]+ at this"
    )
    assert len(re.findall(said, text)) == 2


def test_a_rounded_zero_has_no_minus():
    part = {"difference": -0.0004, "ci95": [-0.0104, -0.0001]}
    assert formatting.change(part) == "+0.0 (-1.0 to +0.0)"


def test_the_page_needs_no_other_file(written):
    page = written["report.html"].decode()
    embedded = re.search(r'src="data:image/png;base64,([^"]+)"', page)[1]
    assert base64.b64decode(embedded) == written["chart.png"]
    assert written["chart.png"].startswith(b"\x89PNG")
    assert not re.search(r"https?://|<script|<link", page)


def test_the_report_is_the_same_every_time(tmp_path, evaluations):
    assert write(tmp_path / "one", evaluations) == write(tmp_path / "two", evaluations)


def test_the_summary_is_json_without_nan(written, evaluations):
    def refuse(name):
        raise AssertionError(name)

    summary = json.loads(written["summary.json"], parse_constant=refuse)
    assert summary["finetuned"]["scorers"]["logit"]["n"] == 110
    assert summary["finetuned_minus_base"]["overall"]["difference"] > 0
    assert summary["base_model_card"]["open_accuracy"] == 0.912
    assert sum(summary["base"]["letters"]["strict"].values()) == 110


def test_text_from_data_cannot_become_markup(tmp_path, evaluations):
    base, finetuned, rows_base, rows_finetuned = evaluations
    attack = "<script>alert(1)</script>\x00| **bold**"
    rows_base = rows_base.assign(raw=attack, question=attack)
    rows_finetuned = rows_finetuned.assign(raw=attack, question=attack)
    base, finetuned = {**base, "model": "<b>x</b>"}, {**finetuned, "model": "<b>y</b>"}
    files = write(tmp_path, (base, finetuned, rows_base, rows_finetuned), card={"<i>": "<u>"})
    for name in ("report.html", "report.md"):
        text = files[name].decode()
        assert "&lt;script&gt;" in text
        for tag in ("<script", "<b>", "<i>", "<u>", "\x00"):
            assert tag not in text


def test_without_reference_or_card_their_sections_are_left_out(tmp_path, evaluations):
    text = write(tmp_path, evaluations, reference="none")["report.md"].decode()
    assert "CinePile v1" not in text
    assert "crippled" not in text


def test_an_evaluation_without_answers_still_makes_a_report(tmp_path):
    rows = make_predictions().assign(status="missing_clip")
    summary = metrics.summarise(rows, "m", "CinePile-mini", "test", None, SAMPLES, SEED)
    text = write(tmp_path, (summary, summary, rows, rows))["report.md"].decode()
    assert "12 clips with 120 questions" in text


def test_predictions_without_probabilities_leave_calibration_empty(tmp_path, evaluations):
    base, finetuned, rows_base, rows_finetuned = evaluations
    bare = rows_base.drop(columns=[f"p_{letter}" for letter in "ABCDE"])
    files = write(tmp_path, (base, finetuned, bare, rows_finetuned))
    assert json.loads(files["summary.json"])["base"]["calibration_error"] is None


def test_two_evaluations_of_different_data_are_refused(tmp_path, evaluations):
    base, finetuned, *rows = evaluations
    with pytest.raises(InputError, match="split 'test'"):
        write(tmp_path, (base, {**finetuned, "split": "train"}, *rows))


def test_published_rows_know_what_kind_of_model_they_are():
    rows = pd.concat([evaluation_report.published("v1"), evaluation_report.published("v2")])
    assert set(rows["kind"]) == {"human", "closed", "open"}
