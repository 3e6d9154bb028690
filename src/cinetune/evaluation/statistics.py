"""Accuracies with intervals, paired differences, calibration."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binomtest

from cinetune.errors import InputError

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
    """{"n", "difference", "ci95"}: accuracy of `a` minus accuracy of `b` on the same questions [n]."""
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
    # Without a question that tells the two apart there is nothing to test.
    p_value = float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
    return {"only_a": only_a, "only_b": only_b, "p_value": p_value}


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
