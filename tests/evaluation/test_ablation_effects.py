"""What an ablation costs, and what rotations say."""

from __future__ import annotations

import pytest

from builders.predictions import make_predictions, rotated
from cinetune.evaluation import ablation_effects, metrics
from cinetune.report import ablation_report

pytestmark = pytest.mark.evaluation


SAMPLES, SEED = 200, 3


def test_a_drop_is_the_plain_accuracy_less_the_ablated_one():
    tables = {"none": make_predictions(skill=0.8, seed=2), "neither": make_predictions(skill=0.0, seed=4)}
    tables = {name: rows.assign(rotation=0) for name, rows in tables.items()}
    summaries = {name: metrics.summarise(rows, "m", "d", "test", name, SAMPLES, SEED) for name, rows in tables.items()}
    measured = ablation_effects.measure(tables, summaries, SAMPLES, SEED, "clips")
    found = measured["ablations"]["neither"]
    accuracy = [summaries[name]["scorers"]["logit"]["overall"]["accuracy"] for name in ("none", "neither")]
    assert found["drop"]["overall"]["difference"] == pytest.approx(accuracy[0] - accuracy[1])
    assert found["drop"]["overall"]["ci95"][0] > 0.3
    assert measured["rotations"] is None
    logged = ablation_effects.mlflow_metrics(measured)
    assert logged["drop/neither"] == found["drop"]["overall"]["difference"] and "drop/neither/temp" in logged
    assert f"{100 * logged['drop/neither']:+.1f} (" in ablation_report.console(measured)
    (section,) = ablation_report.sections(measured)
    assert "CRD: Character and Relationship Dynamics" in section.paragraphs[1]
    whole, parts = section.tables
    assert whole.rows[1][:3] == ["neither", "black frames and no subtitles", f"{found['drop']['overall']['n']:,}"]
    assert parts.rows[-1] == ["questions", *(f"{part['n']:,}" for part in found["drop"]["categories"].values())]


def test_rotations_are_judged_together_with_the_plain_evaluation():
    names = ("none", "rotation_1", "rotation_2", "rotation_3", "rotation_4")
    tables = {name: rotated(k, lambda place, k: (place - k) % 5) for k, name in enumerate(names)}
    summaries = {name: metrics.summarise(rows, "m", "d", "test", name, SAMPLES, SEED) for name, rows in tables.items()}
    measured = ablation_effects.measure(tables, summaries, SAMPLES, SEED, "clips")
    assert measured["rotations"]["logit"]["consistent"] == 1.0
    assert measured["rotations"]["strict"]["consistent"] == 0.0, "a reply that nobody can read agrees with nothing"
    assert all(content["drop"]["overall"]["difference"] == 0 for content in measured["ablations"].values())
    assert ablation_effects.mlflow_metrics(measured)["rotations/consistent"] == 1.0
    assert [section.title for section in ablation_report.sections(measured)] == [
        "What is lost",
        "Does the place of an option matter?",
    ]
