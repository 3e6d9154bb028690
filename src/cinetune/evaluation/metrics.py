"""Accuracies with their counts and clustered intervals, paired tests, calibration, agreement.

Fractions everywhere; intervals are 95 %. Questions about one clip are not independent of each other, so it is
clips (or whole films) that are the sample, never questions. Nothing depends on the order of the rows.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pandas as pd

from cinetune.errors import InputError
from cinetune.evaluation.published import published_average
from cinetune.evaluation.statistics import (
    accuracy,
    calibration,
    calibration_uncertainty,
    expected_calibration_error,
)
from cinetune.params import Params
from cinetune.task.questions import CATEGORIES, LETTERS, film_key, films_of

CATEGORY_TITLES: dict[str, str] = {short: " ".join(full.split()) for full, short in CATEGORIES.items()}
SCORERS = ("strict", "lenient", "logit")
# A choice among letters that together have less probability than this says little of the model's own answer.
SLIGHT_MASS = 0.01
# What is drawn in a resampling, and the column that names it.
CLUSTERS = {"clips": "clip_id", "films": "film"}
CALIBRATION_BINS = 10


def scored(predictions: pd.DataFrame) -> pd.DataFrame:
    """The rows that count, by question_id, with their category's short key in `category`.

    Raises InputError for a missing column, a question twice, an unknown category or a gold letter left out.
    """
    required = ["question_id", "clip_id", "category", "hard_split", "visual_reliance", "gold", "status", *SCORERS]
    missing = [name for name in required if name not in predictions.columns]
    if missing:
        raise InputError(f"predictions have no column {missing[0]!r}: rerun `evaluate`.")
    twice = predictions.loc[predictions["question_id"].duplicated(), "question_id"]
    if len(twice):
        raise InputError(f"question {twice.iloc[0]!r} is predicted twice: remove one of the rows.")
    rows = predictions[predictions["status"] == "ok"].sort_values("question_id", ignore_index=True)
    unknown = sorted(set(rows["category"].astype(str)) - set(CATEGORIES))
    if unknown:
        known = ", ".join(repr(name) for name in CATEGORIES)
        raise InputError(f"question category {unknown[0]!r} is not known: choose from {known}.")
    if rows["gold"].isna().any():
        question = rows.loc[rows["gold"].isna(), "question_id"].iloc[0]
        raise InputError(f"question {question!r} has no gold letter: it cannot be scored.")
    rows["category"] = rows["category"].map(CATEGORIES)
    return rows


def is_correct(rows: pd.DataFrame, scorer: str) -> np.ndarray:
    """Booleans [n]: does the scorer's letter equal the gold letter? An unparsed reply is wrong."""
    return (rows[scorer].notna() & (rows[scorer] == rows["gold"])).to_numpy(dtype=bool)


def summarise(
    predictions: pd.DataFrame,
    model: str,
    dataset: str,
    split: str,
    ablation: str | None,
    bootstrap_samples: int,
    seed: int,
    resample: str = "clips",
    published_average: float | None = None,
    training_films: Collection[str] = (),
) -> dict[str, Any]:
    """What metrics.json holds: per scorer the accuracies with their parts, what was missing, calibration.

    `predictions` has one row a question; rows whose status is not "ok" are counted and listed as missing and not
    scored. `published_average` (a fraction) is what the missing ones might have scored, where that is known.
    `training_films`: keys of films (`questions.film_key`) that a model may have been trained on.
    """
    rows = scored(predictions)
    skipped = predictions[predictions["status"] != "ok"]
    clusters = cluster_names(rows, resample)

    def score(correct: np.ndarray, chosen: np.ndarray) -> dict[str, Any]:
        return accuracy(correct[chosen], clusters[chosen])

    def of_scorer(name: str) -> dict[str, Any]:
        correct = is_correct(rows, name)
        parts = {
            part: {value: score(correct, chosen) for value, chosen in masks.items()}
            for part, masks in _parts(rows, training_films).items()
        }
        return {
            "overall": score(correct, np.ones(len(rows), dtype=bool)),
            "unparsed": int(rows[name].isna().sum()),
            **parts,
            "letters": letter_counts(rows, name, LETTERS),
            "confusion": confusion(rows, name),
            "bounds": bounds(int(correct.sum()), len(rows), len(skipped), published_average),
        }

    scorers = {name: of_scorer(name) for name in SCORERS}
    if "abstained" in rows.columns:
        scorers["lenient"]["abstained"] = int(rows["abstained"].sum())
    return {
        "model": model,
        "dataset": dataset,
        "split": split,
        # The parameter's word for "no ablation" is null in the file.
        "ablation": None if ablation in (None, "", "none") else ablation,
        "scorers": scorers,
        "clips_missing": int(skipped["clip_id"].nunique()),
        "questions_missing": len(skipped),
        "missing": _missing(skipped),
        "resampled": resample,
        "gold_letters": letter_counts(rows, "gold", LETTERS),
        "letter_mass": _letter_mass(rows),
        "calibration": _calibration_summary(rows, resample, bootstrap_samples, seed),
    }


def _letter_mass(rows: pd.DataFrame) -> dict[str, Any] | None:
    """Of the probability that the option letters together have of being the next token; None where it is unknown."""
    known = rows.reindex(columns=["letter_mass"])["letter_mass"].dropna().astype(float)
    if known.empty:
        return None
    return {"n": len(known), "median": float(known.median()), "below_limit": float((known < SLIGHT_MASS).mean())}


def cluster_names(rows: pd.DataFrame, resample: str) -> np.ndarray:
    name = CLUSTERS[resample]
    if name not in rows.columns:
        raise InputError(f"predictions have no column {name!r}: rerun `evaluate`, or resample clips.")
    return rows[name].astype(str).to_numpy()


def _parts(rows: pd.DataFrame, training_films: Collection[str]) -> dict[str, dict[str, np.ndarray]]:
    """Which rows make up each part of each breakdown; genre, decade and overlap of films where the rows have them."""
    reliance = rows["visual_reliance"].astype(str)
    by_reliance = {value: reliance == value for value in ("0", "1")}
    is_unknown = ~reliance.isin(list(by_reliance))
    parts = {
        "categories": {short: rows["category"] == short for short in CATEGORY_TITLES},
        "hard_split": {value: rows["hard_split"].astype(str) == value for value in ("True", "False")},
        "visual_reliance": by_reliance | ({"unknown": is_unknown} if is_unknown.any() else {}),
        "genre": {},
        "decade": {},
    }
    if "genres" in rows.columns:
        # A film of two genres counts in both.
        genres = rows["genres"].fillna("").astype(str).str.split("|")
        names = sorted({name for of_film in genres for name in of_film if name})
        parts["genre"] = {name: genres.map(lambda of_film, name=name: name in of_film) for name in names}
    if "year" in rows.columns:
        decades = rows["year"].map(lambda year: "" if pd.isna(year) else f"{int(year) // 10 * 10}s")
        parts["decade"] = {name: decades == name for name in sorted(set(decades) - {""})}
    if "film" in rows.columns:
        seen = rows["film"].astype(str).map(film_key).isin(list(training_films))
        parts |= {"film_overlap": {"seen": seen, "unseen": ~seen}} if seen.any() else {}
    return {
        part: {value: chosen.to_numpy(dtype=bool) for value, chosen in masks.items()} for part, masks in parts.items()
    }


def _missing(skipped: pd.DataFrame) -> list[dict[str, Any]]:
    reasons = skipped["reason"] if "reason" in skipped.columns else skipped["status"]
    table = skipped.assign(reason=reasons.fillna("").astype(str)).groupby("clip_id", sort=True)
    return [
        {"clip_id": str(clip_id), "questions": len(rows), "reason": rows["reason"].iloc[0]} for clip_id, rows in table
    ]


def bounds(correct: int, n: int, missing: int, published_average: float | None) -> dict[str, float | None]:
    """What accuracy over all questions would be, were the missing ones all wrong, all right or as published."""
    total = n + missing

    def over_all(right: float) -> float | None:
        return right / total if total else None

    return {
        "missing_wrong": over_all(correct),
        "missing_right": over_all(correct + missing),
        "missing_as_published": None if published_average is None else over_all(correct + missing * published_average),
    }


def confusion(rows: pd.DataFrame, column: str) -> dict[str, dict[str, int]]:
    """How often each letter was chosen where each was right: gold letter -> `letter_counts`."""
    return {gold: letter_counts(rows[rows["gold"] == gold], column, LETTERS) for gold in LETTERS}


def confidences(rows: pd.DataFrame, resample: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The likeliest letter's share, whether it is right, and the clip or film, of the rows that have probabilities."""
    known = _has_probabilities(rows)
    likeliest = _shares(rows).max(axis=1).to_numpy()
    return likeliest[known], is_correct(rows, "logit")[known], cluster_names(rows, resample)[known]


def _shares(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.reindex(columns=[f"p_{letter}" for letter in LETTERS]).astype(float)


def _has_probabilities(rows: pd.DataFrame) -> np.ndarray:
    return _shares(rows).notna().all(axis=1).to_numpy()


def _calibration_summary(rows: pd.DataFrame, resample: str, bootstrap_samples: int, seed: int) -> dict[str, Any]:
    confidence, correct, clusters = confidences(rows, resample)
    return {
        "n": len(confidence),
        "error": expected_calibration_error(confidence, correct, CALIBRATION_BINS),
        "bins": calibration(confidence, correct, clusters, CALIBRATION_BINS),
        **calibration_uncertainty(confidence, correct, clusters, CALIBRATION_BINS, bootstrap_samples, seed),
    }


def letter_counts(rows: pd.DataFrame, column: str, letters: str) -> dict[str, int]:
    """How often each letter stands in a column, in that order, and how often none of them ("none")."""
    counts = {letter: int((rows[column] == letter).sum()) for letter in letters}
    return counts | {"none": len(rows) - sum(counts.values())}


def summarise_for(
    params: Params, ablation: str, predictions: pd.DataFrame, model: str, is_finetuned: bool
) -> dict[str, Any]:
    """`summarise` with the data and the statistics that the params name."""
    chosen, dataset = params.evaluate, params.data.name
    statistics = chosen.bootstrap_samples, chosen.seed, chosen.resample, published_average(dataset, is_finetuned)
    training_films = films_of(params.data.root, "train") if chosen.split != "train" else ()
    return summarise(predictions, model, dataset, chosen.split, ablation, *statistics, training_films)


def headline(summaries: Mapping[str, Any]) -> dict[str, float | None]:
    """Accuracy by option logit of several models, with its interval and by category, for the run of the loop."""
    found: dict[str, float | None] = {}
    for name, summary in summaries.items():
        scores = summary["scorers"]["logit"]
        low, high = scores["overall"]["ci95"] or (None, None)
        found |= {
            f"{name}/accuracy": scores["overall"]["accuracy"],
            f"{name}/ci_low": low,
            f"{name}/ci_high": high,
        }
        found |= {f"{name}/accuracy/{short}": part["accuracy"] for short, part in scores["categories"].items()}
    return found


def headlines(summary: Mapping[str, Any]) -> list[str]:
    """A sentence a scorer, of those that could score anything."""
    return [
        f"{scorer} {scores['overall']['accuracy']:.1%} of {scores['overall']['n']} questions."
        for scorer, scores in summary["scorers"].items()
        if scores["overall"]["accuracy"] is not None
    ]


def mlflow_metrics(summary: Mapping[str, Any]) -> dict[str, float | None]:
    """metrics.json as MLflow metrics, named by split: `test/accuracy`, `test/accuracy/crd`, ...

    Those are by option logit; the others stand under their scorer's name, as in `test/strict/accuracy`. Intervals are
    those of the whole; metrics.json and the report have them all.
    """
    split = summary["split"]
    found: dict[str, float | None] = {
        f"{split}/n": summary["scorers"]["logit"]["overall"]["n"],
        f"{split}/clips_missing": summary["clips_missing"],
        f"{split}/questions_missing": summary["questions_missing"],
        f"{split}/calibration_error": summary["calibration"]["error"],
        f"{split}/lenient/abstained": summary["scorers"]["lenient"].get("abstained"),
    }
    for scorer, scores in summary["scorers"].items():
        above = split if scorer == "logit" else f"{split}/{scorer}"
        overall = scores["overall"]
        low, high = overall["ci95"] or (None, None)
        parts = scores["categories"] | {
            "hard": scores["hard_split"]["True"],
            "needs_picture": scores["visual_reliance"]["1"],
        }
        found |= {f"{above}/accuracy": overall["accuracy"], f"{above}/ci_low": low, f"{above}/ci_high": high}
        found |= {f"{above}/accuracy/{name}": part["accuracy"] for name, part in parts.items()}
        found |= {f"{above}/unparsed": scores["unparsed"]}
    return found
