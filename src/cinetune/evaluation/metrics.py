"""Accuracies with their counts and clustered intervals, paired tests, calibration, agreement.

Fractions everywhere; intervals are 95 %. Questions about one clip are not independent of each other, so it is
clips (or whole groups) that are the sample, never questions. Nothing depends on the order of the rows.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pandas as pd

from cinetune.errors import InputError
from cinetune.evaluation import open_answers
from cinetune.evaluation.published import published_average
from cinetune.evaluation.statistics import (
    accuracy,
    calibration,
    calibration_uncertainty,
    expected_calibration_error,
)
from cinetune.params import Params
from cinetune.task import data_card, description
from cinetune.task.description import CINEPILE, Task
from cinetune.task.groups import group_key, groups_of

SCORERS = ("strict", "lenient", "logit")
# A choice among letters that together have less probability than this says little of the model's own answer.
SLIGHT_MASS = 0.01
CLIPS = "clips"
# Columns of predictions where a task needs them: how many options a question has, and an open one's right answer.
NUM_CHOICES, WORDS = "num_choices", "words"
CALIBRATION_BINS = 10
SLICES = {"hard_split": ("True", "False"), "visual_reliance": ("0", "1")}
NAMED_SLICES = {"hard": ("hard_split", "True"), "needs_picture": ("visual_reliance", "1")}


def scored(predictions: pd.DataFrame, task: Task = CINEPILE) -> pd.DataFrame:
    """The rows that count, by question_id, with their category's short key in `category`; open questions are left out.

    Raises InputError for a missing column, a question twice, an unknown category or a gold letter left out.
    """
    slices = [name for name in SLICES if task.column(name)]
    categories = ["category"] if task.categories else []
    required = ["question_id", "clip_id", *categories, *slices, "gold", "status", *SCORERS]
    missing = [name for name in required if name not in predictions.columns]
    if missing:
        raise InputError(f"predictions have no column {missing[0]!r}: rerun `evaluate`.")
    twice = predictions.loc[predictions["question_id"].duplicated(), "question_id"]
    if len(twice):
        raise InputError(f"question {twice.iloc[0]!r} is predicted twice: remove one of the rows.")
    rows = predictions[predictions["status"] == "ok"].sort_values("question_id", ignore_index=True)
    rows = rows[num_choices(rows, task) > 0].reset_index(drop=True)
    unknown = sorted(set(rows["category"].astype(str)) - set(task.shorts)) if categories else []
    if unknown:
        known = ", ".join(repr(name) for name in task.shorts)
        raise InputError(f"question category {unknown[0]!r} is not known: choose from {known}.")
    if rows["gold"].isna().any():
        question = rows.loc[rows["gold"].isna(), "question_id"].iloc[0]
        raise InputError(f"question {question!r} has no gold letter: it cannot be scored.")
    return rows.assign(category=rows["category"].map(task.shorts) if categories else "")


def _open(predictions: pd.DataFrame, task: Task) -> pd.DataFrame:
    """The open questions that were asked, by question_id."""
    asked = predictions[(predictions["status"] == "ok") & (num_choices(predictions, task) == 0)]
    return asked.sort_values("question_id", ignore_index=True)


def num_choices(rows: pd.DataFrame, task: Task) -> np.ndarray:
    """How many options each question [n] has; 0 for an open one."""
    if not task.counts_choices:
        return np.full(len(rows), task.max_choices)
    if NUM_CHOICES not in rows.columns:
        raise InputError(f"predictions have no column {NUM_CHOICES!r}: rerun `evaluate`.")
    return rows[NUM_CHOICES].to_numpy(dtype=int)


def chance(rows: pd.DataFrame, task: Task) -> float | None:
    """The share of questions that a guess gets right; None without questions."""
    if not task.counts_choices:
        return 1 / task.max_choices
    return float((1 / num_choices(rows, task)).mean()) if len(rows) else None


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
    training_groups: Collection[str] = (),
    task: Task = CINEPILE,
) -> dict[str, Any]:
    """What metrics.json holds: per scorer the accuracies with their parts, what was missing, calibration.

    `predictions` has one row a question; rows whose status is not "ok" are counted and listed as missing and not
    scored. `published_average` (a fraction) is what the missing ones might have scored, where that is known.
    `training_groups`: keys of groups (`groups.group_key`) that a model may have been trained on. `resample`: what the
    intervals are over, clips or groups.
    """
    rows = scored(predictions, task)
    skipped = predictions[predictions["status"] != "ok"]
    resampled = CLIPS if resample == CLIPS else task.groups
    clusters = cluster_names(rows, resampled, task)

    def score(correct: np.ndarray, chosen: np.ndarray) -> dict[str, Any]:
        return accuracy(correct[chosen], clusters[chosen])

    def of_scorer(name: str) -> dict[str, Any]:
        correct = is_correct(rows, name)
        parts = {
            part: {value: score(correct, chosen) for value, chosen in masks.items()}
            for part, masks in _parts(rows, training_groups, task).items()
        }
        return {
            "overall": score(correct, np.ones(len(rows), dtype=bool)),
            "unparsed": int(rows[name].isna().sum()),
            **parts,
            "letters": letter_counts(rows, name, task.letters),
            "confusion": confusion(rows, name, task),
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
        "resampled": resampled,
        "gold_letters": letter_counts(rows, "gold", task.letters),
        "letter_mass": _letter_mass(rows),
        "calibration": _calibration_summary(rows, resampled, bootstrap_samples, seed, task),
        "chance": chance(rows, task),
        **({"open": open_answers.measure(_open(predictions, task), resampled, task)} if task.open_questions else {}),
        "task": task.to_dict(),
    }


def _letter_mass(rows: pd.DataFrame) -> dict[str, Any] | None:
    """Of the probability that the option letters together have of being the next token; None where it is unknown."""
    known = rows.reindex(columns=["letter_mass"])["letter_mass"].dropna().astype(float)
    if known.empty:
        return None
    return {"n": len(known), "median": float(known.median()), "below_limit": float((known < SLIGHT_MASS).mean())}


def cluster_names(rows: pd.DataFrame, resample: str, task: Task = CINEPILE) -> np.ndarray:
    """The clip, or the group, of each row."""
    name = "clip_id" if resample == CLIPS else task.group
    if name not in rows.columns:
        raise InputError(f"predictions have no column {name!r}: rerun `evaluate`, or resample clips.")
    return rows[name].astype(str).to_numpy()


def _parts(rows: pd.DataFrame, training_groups: Collection[str], task: Task) -> dict[str, dict[str, np.ndarray]]:
    """Which rows make up each part of each breakdown; slices and overlap of groups where the rows have them."""
    parts = {"categories": {short: rows["category"] == short for short in task.categories}}
    for name, values in SLICES.items():
        if task.column(name):
            own = rows[name].astype(str)
            parts[name] = {value: own == value for value in values}
    if "visual_reliance" in parts:
        is_unknown = ~rows["visual_reliance"].astype(str).isin(SLICES["visual_reliance"])
        parts["visual_reliance"] |= {"unknown": is_unknown} if is_unknown.any() else {}
    parts |= {"genre": {}, "decade": {}}
    if "genres" in rows.columns:
        # A film of two genres counts in both.
        genres = rows["genres"].fillna("").astype(str).str.split("|")
        names = sorted({name for of_film in genres for name in of_film if name})
        parts["genre"] = {name: genres.map(lambda of_film, name=name: name in of_film) for name in names}
    if "year" in rows.columns:
        decades = rows["year"].map(lambda year: "" if pd.isna(year) else f"{int(year) // 10 * 10}s")
        parts["decade"] = {name: decades == name for name in sorted(set(decades) - {""})}
    if task.group in rows.columns:
        seen = rows[task.group].astype(str).map(group_key).isin(list(training_groups))
        parts |= {f"{task.group}_overlap": {"seen": seen, "unseen": ~seen}} if seen.any() else {}
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


def confusion(rows: pd.DataFrame, column: str, task: Task = CINEPILE) -> dict[str, dict[str, int]]:
    """How often each letter was chosen where each was right: gold letter -> `letter_counts`."""
    return {gold: letter_counts(rows[rows["gold"] == gold], column, task.letters) for gold in task.letters}


def confidences(rows: pd.DataFrame, resample: str, task: Task = CINEPILE) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The likeliest letter's share, whether it is right, and the clip or group, of the rows that have probabilities."""
    shares = rows.reindex(columns=[f"p_{letter}" for letter in task.letters]).astype(float)
    known = shares.notna().sum(axis=1).to_numpy() == num_choices(rows, task)
    likeliest = shares.max(axis=1).to_numpy()
    return likeliest[known], is_correct(rows, "logit")[known], cluster_names(rows, resample, task)[known]


def _calibration_summary(
    rows: pd.DataFrame, resample: str, bootstrap_samples: int, seed: int, task: Task
) -> dict[str, Any]:
    confidence, correct, clusters = confidences(rows, resample, task)
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
    chosen, dataset, task = params.evaluate, data_card.name_of(params.data), description.of_folder(params.data.root)
    published = published_average(dataset, is_finetuned, task)
    statistics = chosen.bootstrap_samples, chosen.seed, chosen.resample, published
    training_groups = groups_of(params.data.root, "train") if chosen.split != "train" else ()
    return summarise(predictions, model, dataset, chosen.split, ablation, *statistics, training_groups, task)


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
    """A sentence a scorer, of those that could score anything, and one of open questions."""
    told = open_answers.headline(summary["open"]) if "open" in summary else []
    return [
        f"{scorer} {scores['overall']['accuracy']:.1%} of {scores['overall']['n']} questions."
        for scorer, scores in summary["scorers"].items()
        if scores["overall"]["accuracy"] is not None
    ] + told


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
        f"{split}/chance": summary.get("chance"),
    }
    if "open" in summary:
        found |= {f"{split}/open/{name}": summary["open"][name] for name in ("n", "token_match")}
        found |= {f"{split}/open/exact": summary["open"]["exact"]["accuracy"]}
    for scorer, scores in summary["scorers"].items():
        above = split if scorer == "logit" else f"{split}/{scorer}"
        overall = scores["overall"]
        low, high = overall["ci95"] or (None, None)
        parts = dict(scores["categories"])
        for name, (part, value) in NAMED_SLICES.items():
            parts |= {name: scores[part][value]} if part in scores else {}
        found |= {f"{above}/accuracy": overall["accuracy"], f"{above}/ci_low": low, f"{above}/ci_high": high}
        found |= {f"{above}/accuracy/{name}": part["accuracy"] for name, part in parts.items()}
        found |= {f"{above}/unparsed": scores["unparsed"]}
    return found
