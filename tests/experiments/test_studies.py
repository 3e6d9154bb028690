"""Studies say how far a result is chance, and train on nested sets of films."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from builders.refusals import sentence
from cinetune.experiments import studies
from cinetune.report import study_report

pytestmark = pytest.mark.evaluation


def trained(seed, films, accuracy):
    score = {"n": 100, "correct": int(100 * accuracy), "accuracy": accuracy, "ci95": [accuracy - 0.1, accuracy + 0.1]}
    strict = score | {"accuracy": accuracy / 2, "ci95": [0.0, accuracy]}
    scorers = {"strict": {"overall": strict}, "lenient": {"overall": score}, "logit": {"overall": score}}
    return {"seed": seed, "films": films, "metrics": {"scorers": scorers}}


def test_the_spread_is_over_seeds_on_all_films_and_the_curve_over_films_of_one_seed(tmp_path):
    runs = [trained(1, 90, 0.6), trained(2, 90, 0.7), trained(3, 90, 0.8), trained(1, 30, 0.5), trained(1, 9, 0.3)]
    measured = studies.measure(runs, 90)
    assert measured["seeds"] == pytest.approx(
        {
            "n": 3,
            "mean": 0.7,
            "standard_deviation": 0.1,
            "least": 0.6,
            "most": 0.8,
            # Of three, by chi-square with two degrees of freedom.
            "standard_deviation_low": 0.1 * math.sqrt(2 / 7.3778),
            "standard_deviation_high": 0.1 * math.sqrt(2 / 0.050636),
        },
        rel=1e-4,
    )
    assert [(row["films"], row["score"]["accuracy"]) for row in measured["curve"]] == [(9, 0.3), (30, 0.5), (90, 0.6)]
    logged = studies.mlflow_metrics(measured)
    assert logged["curve/30_films"] == 0.5 and logged["strict/curve/30_films"] == 0.25
    assert logged["seeds/mean"] == pytest.approx(0.7) and logged["strict/seeds/mean"] == pytest.approx(0.35)
    study_report.write(tmp_path, measured, "CinePile-mini")
    said = (tmp_path / "report.md").read_text("utf-8")
    assert "| logit | 3 | 70.0 | 60.0 | 80.0 | 10.0 (5.2–62.8) |" in said
    assert "| strict | 3 | 35.0 | 30.0 | 40.0 | 5.0 (2.6–31.4) |" in said
    assert (tmp_path / "curve.png").is_file()


def test_one_seed_has_no_spread():
    assert studies.measure([trained(1, 9, 0.6)], 9)["seeds"]["standard_deviation"] is None


def test_one_film_in_two_spellings_is_one_film(tmp_path):
    (tmp_path / "data/questions").mkdir(parents=True)
    rows = pd.DataFrame({"movie_name": ["Casablanca", "CASABLANCA ", "Gilda"], "year": [1942, 1942, 1946]})
    rows.to_parquet(tmp_path / "data/questions/train.parquet")
    films = studies.films_of(tmp_path / "data")
    assert films == ["casablanca (1942)", "gilda (1946)"]
    studies.with_films(tmp_path / "data", films[:1], tmp_path / "few")
    assert len(pd.read_parquet(tmp_path / "few/questions/train.parquet")) == 2


def test_fewer_films_are_among_more_and_their_questions_are_whole(tmp_path):
    root = tmp_path / "data"
    (root / "questions").mkdir(parents=True)
    (root / "clips").mkdir()
    rows = pd.DataFrame({"movie_name": [f"film {n % 9}" for n in range(36)], "year": 1990, "question": range(36)})
    rows.to_parquet(root / "questions/train.parquet")
    rows.to_parquet(root / "questions/test.parquet")
    films = studies.films_of(root)
    assert len(films) == 9
    few, more = studies.choose_films(films, 3, 7), studies.choose_films(films, 6, 7)
    assert set(few) < set(more) and studies.choose_films(films, 3, 8) != few
    studies.with_films(root, few, tmp_path / "few")
    left = pd.read_parquet(tmp_path / "few/questions/train.parquet")
    assert sorted(set(left["movie_name"] + " (1990)")) == sorted(few) and len(left) == 12
    assert len(pd.read_parquet(tmp_path / "few/questions/test.parquet")) == 36 and (tmp_path / "few/clips").is_dir()
    for count in (1, 10):
        assert "of 9 training films" in sentence(lambda count=count: studies.choose_films(films, count, 7))


@pytest.mark.parametrize("text", ["one", "1 -2", "0", "1.5"])
def test_what_is_no_whole_number_is_refused(text):
    assert "study.seeds" in sentence(lambda: studies.read_numbers("study.seeds", text))


def test_numbers_are_read_once_each():
    assert studies.read_numbers("study.films", "3, 1 3") == [3, 1]
    assert studies.read_numbers("study.films", "") == []
