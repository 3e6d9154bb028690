"""Accuracies with their counts and clustered intervals, paired tests, calibration, agreement.

Fractions everywhere; intervals are 95 %. Questions about one clip are not independent of each other, so it is
clips (or whole films) that are resampled, never questions. An interval is None below two of them: one says nothing
of the next. Nothing depends on the order of the rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from cinetune.answers import LETTERS
from cinetune.errors import InputError
from cinetune.questions import CATEGORIES

CATEGORY_TITLES: dict[str, str] = {short: " ".join(full.split()) for full, short in CATEGORIES.items()}
SCORERS = ("strict", "lenient", "logit")
# What is drawn in a resampling, and the column that names it.
CLUSTERS = {"clips": "clip_id", "films": "film"}
CALIBRATION_BINS = 10
# Columns that two predictions of one question have in common.
SHARED = ("clip_id", "film", "category", "question", "url")
# Bounds the memory of a resampling: drawn clips held at once.
DRAWS_AT_ONCE = 4_000_000


def accuracy(
    correct: ArrayLike, clusters: ArrayLike, bootstrap_samples: int, seed: int
) -> dict[str, int | float | list[float] | None]:
    """{"n", "correct", "accuracy", "ci95"} of booleans [n] whose questions belong to clips [n].

    accuracy is None without questions.
    """
    values = np.asarray(correct, dtype=bool)
    n = int(values.size)
    return {
        "n": n,
        "correct": int(values.sum()),
        "accuracy": float(values.mean()) if n else None,
        "ci95": _interval_of_mean(values.astype(float), clusters, bootstrap_samples, seed),
    }


def paired_difference(
    correct_a: ArrayLike, correct_b: ArrayLike, clusters: ArrayLike, bootstrap_samples: int, seed: int
) -> dict[str, int | float | list[float] | None]:
    """{"n", "difference", "ci95"}: accuracy of `a` less accuracy of `b` on the same questions [n]."""
    differences = np.asarray(correct_a, dtype=bool).astype(float) - np.asarray(correct_b, dtype=bool)
    n = int(differences.size)
    return {
        "n": n,
        "difference": float(differences.mean()) if n else None,
        "ci95": _interval_of_mean(differences, clusters, bootstrap_samples, seed),
    }


def _interval_of_mean(values: np.ndarray, clusters: ArrayLike, bootstrap_samples: int, seed: int) -> list[float] | None:
    names = np.asarray(clusters)
    if names.shape != values.shape:
        raise ValueError(f"{values.size} values need a cluster each, got {names.size}")
    # Sorted cluster names make the interval independent of the order of the rows.
    unique, index = np.unique(names.astype(str), return_inverse=True)
    if unique.size < 2:
        return None
    sums = np.bincount(index, weights=values)
    counts = np.bincount(index)
    generator = np.random.default_rng(seed)
    means = np.empty(bootstrap_samples)
    step = max(1, DRAWS_AT_ONCE // unique.size)
    for start in range(0, bootstrap_samples, step):
        stop = min(start + step, bootstrap_samples)
        drawn = generator.integers(unique.size, size=(stop - start, unique.size))
        means[start:stop] = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    bounds: list[float] = np.percentile(means, [2.5, 97.5]).tolist()
    return bounds


def mcnemar(correct_a: ArrayLike, correct_b: ArrayLike) -> dict[str, int | float]:
    """{"only_a", "only_b", "p_value"}: exact two-sided test on the questions that only one of two gets right.

    It treats questions as independent; the clustered interval of `paired_difference` is the safer of the two.
    """
    a, b = np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool)
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    discordant = only_a + only_b
    # Whole numbers, because 2.0 ** 4941 is no float.
    tail = term = 1
    for count in range(min(only_a, only_b)):
        term = term * (discordant - count) // (count + 1)
        tail += term
    return {"only_a": only_a, "only_b": only_b, "p_value": min(1.0, (2 * tail) / 2**discordant)}


def calibration(confidence: ArrayLike, correct: ArrayLike, bins: int) -> list[dict[str, int | float]]:
    """Per occupied bin of equal width over 0..1: {"low", "high", "n", "confidence", "accuracy"}."""
    confidences = np.asarray(confidence, dtype=float)
    values = np.asarray(correct, dtype=bool)
    if not np.all((confidences >= 0) & (confidences <= 1)):
        raise InputError("confidences must lie between 0 and 1: pass probabilities, not logits.")
    index = np.minimum((confidences * bins).astype(int), bins - 1)
    rows = []
    for number in np.unique(index):
        inside = index == number
        rows.append(
            {
                "low": float(number / bins),
                "high": float((number + 1) / bins),
                "n": int(inside.sum()),
                "confidence": float(confidences[inside].mean()),
                "accuracy": float(values[inside].mean()),
            }
        )
    return rows


def expected_calibration_error(confidence: ArrayLike, correct: ArrayLike, bins: int) -> float | None:
    """Mean gap between confidence and accuracy over equal-width bins, weighted by n; None without any."""
    rows = calibration(confidence, correct, bins)
    total = sum(row["n"] for row in rows)
    if not total:
        return None
    return float(sum(row["n"] * abs(row["confidence"] - row["accuracy"]) for row in rows) / total)


def scored(predictions: pd.DataFrame) -> pd.DataFrame:
    """The rows that count, by question_id, with their category's short key in `category`.

    Raises InputError for a missing column, a question twice, an unknown category or a gold letter left out.
    """
    required = ["question_id", "clip_id", "category", "hard_split", "visual_reliance", "gold", "status", *SCORERS]
    missing = [name for name in required if name not in predictions.columns]
    if missing:
        raise InputError(f"predictions have no column {missing[0]!r}: make them again with `evaluate`.")
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
) -> dict[str, Any]:
    """What metrics.json holds: per scorer the accuracies with their parts, what was missing, calibration.

    `predictions` has one row a question; rows whose status is not "ok" are counted and listed as missing and not
    scored. `published_average` (a fraction) is what the missing ones might have scored, where that is known.
    """
    rows = scored(predictions)
    skipped = predictions[predictions["status"] != "ok"]
    clusters = _clusters(rows, resample)

    def score(correct: np.ndarray, chosen: np.ndarray) -> dict[str, Any]:
        return accuracy(correct[chosen], clusters[chosen], bootstrap_samples, seed)

    def of_scorer(name: str) -> dict[str, Any]:
        correct = is_correct(rows, name)
        parts = {
            part: {value: score(correct, chosen) for value, chosen in masks.items()}
            for part, masks in _parts(rows).items()
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
        "calibration": _calibration_summary(rows),
    }


def _clusters(rows: pd.DataFrame, resample: str) -> np.ndarray:
    name = CLUSTERS[resample]
    if name not in rows.columns:
        raise InputError(f"predictions have no column {name!r}: make them again with `evaluate`, or resample clips.")
    return rows[name].astype(str).to_numpy()


def _parts(rows: pd.DataFrame) -> dict[str, dict[str, np.ndarray]]:
    """Which rows make up each part of each breakdown; genre and decade where the rows have them."""
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


def confidences(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """The likeliest letter's share and whether it is right, of the rows that have probabilities."""
    shares = rows.reindex(columns=[f"p_{letter}" for letter in LETTERS]).astype(float)
    known = shares.notna().all(axis=1).to_numpy()
    return shares.max(axis=1).to_numpy()[known], is_correct(rows, "logit")[known]


def _calibration_summary(rows: pd.DataFrame) -> dict[str, Any]:
    confidence, correct = confidences(rows)
    return {
        "n": len(confidence),
        "error": expected_calibration_error(confidence, correct, CALIBRATION_BINS),
        "bins": calibration(confidence, correct, CALIBRATION_BINS),
    }


def compare(
    predictions_a: pd.DataFrame,
    predictions_b: pd.DataFrame,
    scorer: str,
    bootstrap_samples: int,
    seed: int,
    resample: str = "clips",
) -> dict[str, Any]:
    """Two models on the questions that both answered: {"overall", "categories", "questions_unpaired"}.

    Each part is `paired_difference` (a less b) and `mcnemar` together. Raises InputError where the two do not
    agree on a question's clip, category or right option: they were made from different data.
    """
    rows_a, rows_b = scored(predictions_a), scored(predictions_b)
    pairs = paired(rows_a, rows_b, scorer)
    clusters = _clusters(pairs, resample)
    right_a, right_b = pairs["is_right_a"].to_numpy(), pairs["is_right_b"].to_numpy()

    def part(mask: np.ndarray) -> dict[str, Any]:
        a, b = right_a[mask], right_b[mask]
        return paired_difference(a, b, clusters[mask], bootstrap_samples, seed) | mcnemar(a, b)

    category = pairs["category"].to_numpy()
    return {
        "overall": part(np.ones(len(pairs), dtype=bool)),
        "categories": {short: part(category == short) for short in CATEGORY_TITLES},
        "questions_unpaired": len(rows_a) + len(rows_b) - 2 * len(pairs),
    }


def paired(rows_a: pd.DataFrame, rows_b: pd.DataFrame, scorer: str) -> pd.DataFrame:
    """Rows of `scored` side by side, by question_id: what they share, then letter, is_right and the rest by side.

    Raises InputError where the two do not agree on a question's clip, category or right option.
    """
    sides = {"a": _side(rows_a, scorer), "b": _side(rows_b, scorer)}
    pairs = sides["a"].merge(sides["b"], on="question_id", suffixes=("_a", "_b"))
    for name in ("clip_id", "category", "right_option"):
        differing = pairs.loc[pairs[f"{name}_a"] != pairs[f"{name}_b"], "question_id"]
        if len(differing):
            raise InputError(
                f"question {differing.iloc[0]!r} has another {name.replace('_', ' ')} in each of the two predictions: "
                "evaluate both models on the same data."
            )
    shared = [name for name in (*SHARED, "right_option") if f"{name}_a" in pairs.columns]
    pairs = pairs.drop(columns=[f"{name}_b" for name in shared])
    return pairs.rename(columns={f"{name}_a": name for name in shared})


def _side(rows: pd.DataFrame, scorer: str) -> pd.DataFrame:
    rotation = rows["rotation"] if "rotation" in rows.columns else 0
    gold = rows["gold"].map(LETTERS.index).astype(int)
    return rows.reindex(columns=["question_id", *SHARED, "gold", "raw"]).assign(
        letter=rows[scorer],
        is_right=is_correct(rows, scorer),
        # The place of the right option in the data, wherever it stood when it was asked.
        right_option=(gold + rotation) % len(LETTERS),
    )


def agreement_of_rotations(tables: Mapping[str, pd.DataFrame], scorer: str) -> dict[str, Any]:
    """How much a choice depends on where its option stands: {"n", "consistent", "pairs_agreeing", "places"}.

    `tables`: predictions under several rotations. consistent: share of questions for which every rotation chose
    the same option; pairs_agreeing: the mean over pairs of rotations; places: the share of choices that fell on
    each letter, over all rotations. Only questions that every rotation answered count; an unparsed reply agrees
    with nothing.
    """
    columns = {}
    for name, predictions in tables.items():
        rows = scored(predictions).set_index("question_id")
        place = rows[scorer].map(lambda letter: LETTERS.index(letter) if isinstance(letter, str) else np.nan)
        columns[name] = (place + rows["rotation"]) % len(LETTERS)
    chosen = pd.concat(columns, axis=1, join="inner").to_numpy(dtype=float)
    number = chosen.shape[1]
    agreeing = [chosen[:, one] == chosen[:, other] for one in range(number) for other in range(one + 1, number)]
    letters = pd.concat([scored(predictions)[scorer] for predictions in tables.values()])
    counts = {letter: int((letters == letter).sum()) for letter in LETTERS}
    total = sum(counts.values())
    n = len(chosen)
    return {
        "n": n,
        "consistent": float((chosen == chosen[:, :1]).all(axis=1).mean()) if n else None,
        "pairs_agreeing": float(np.mean(agreeing)) if n and agreeing else None,
        "places": {letter: count / total if total else None for letter, count in counts.items()},
    }


def letter_counts(rows: pd.DataFrame, column: str, letters: str) -> dict[str, int]:
    """How often each letter stands in a column, in that order, and how often none of them ("none")."""
    counts = {letter: int((rows[column] == letter).sum()) for letter in letters}
    return counts | {"none": len(rows) - sum(counts.values())}


def figures(summary: Mapping[str, Any]) -> dict[str, float | None]:
    """metrics.json as figures named by split, for MLflow: `test/accuracy`, `test/accuracy/crd`, ...

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
