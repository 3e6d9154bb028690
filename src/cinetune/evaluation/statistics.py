"""Accuracies with intervals, paired differences, calibration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binomtest, chi2, norm
from scipy.stats import t as student_t

from cinetune.errors import InputError

# Below so many clips (or films) a spread is known so poorly that its interval deserves a word of caution.
FEW_CLUSTERS = 30
Z = float(norm.ppf(0.975))
# Bounds the memory of a randomisation: signs held at once.
SIGNS_AT_ONCE = 4_000_000


def accuracy(correct: ArrayLike, clusters: ArrayLike) -> dict[str, Any]:
    """{"n", "correct", "accuracy", "ci95", "few_clusters"} of booleans [n] whose questions belong to clips [n].

    accuracy and ci95 are None without questions. The interval is Wilson's (1927) with the effective sample size of
    a cluster-robust variance in place of n (Korn and Graubard 1998; Franco et al. 2019), never above n, and with
    Student's t in place of the normal quantile; where all are right or all wrong, and no spread is to be seen, it is
    Clopper and Pearson's on the number of clips. `benchmarks/evaluation.py` simulates its coverage: a percentile
    bootstrap over clips is too narrow below some 100 of them, and of width 0 where all are right.
    """
    values = np.asarray(correct, dtype=bool).astype(float)
    sums, counts = _by_cluster(values, clusters)
    n, right = int(counts.sum()), int(sums.sum())
    return {
        "n": n,
        "correct": right,
        "accuracy": right / n if n else None,
        "ci95": _wilson(sums, counts) if n else None,
        "few_clusters": 0 < len(counts) < FEW_CLUSTERS,
    }


def _wilson(sums: np.ndarray, counts: np.ndarray) -> list[float]:
    n, clusters = float(counts.sum()), len(counts)
    share = float(sums.sum()) / n
    if share in (0.0, 1.0):
        return list(map(float, binomtest(round(share * clusters), clusters).proportion_ci(0.95, "exact")))
    # One clip says nothing of the next: it counts as one question.
    inflation = n
    if clusters > 1:
        variance, t = _robust(sums - share * counts, n)
        inflation = max(1.0, variance * n / (share * (1 - share)) * (t / Z) ** 2)
    effective = n / inflation
    shrink = 1 + Z**2 / effective
    centre = (share + Z**2 / (2 * effective)) / shrink
    half = Z / shrink * np.sqrt(share * (1 - share) / effective + Z**2 / (4 * effective**2))
    return [float(centre - half), float(centre + half)]


def paired_difference(correct_a: ArrayLike, correct_b: ArrayLike, clusters: ArrayLike) -> dict[str, Any]:
    """{"n", "difference", "ci95", "few_clusters"}: accuracy of `a` minus accuracy of `b` on the same questions [n].

    The interval is the difference and Student's t times its cluster-robust standard error, and not narrower than it
    were with independent questions, one more won and one more lost (Agresti and Min 2005): never of width 0.
    """
    differences = np.asarray(correct_a, dtype=bool).astype(float) - np.asarray(correct_b, dtype=bool)
    sums, counts = _by_cluster(differences, clusters)
    n = int(counts.sum())
    interval, difference = None, None
    if n:
        difference = float(sums.sum()) / n
        discordant = float(np.abs(differences).sum()) + 2
        half = Z * np.sqrt(discordant - sums.sum() ** 2 / (n + 2)) / (n + 2) if len(counts) > 1 else 1.0
        if len(counts) > 1:
            variance, t = _robust(sums - difference * counts, n)
            half = max(half, t * np.sqrt(variance))
        interval = [max(-1.0, float(difference - half)), min(1.0, float(difference + half))]
    return {
        "n": n,
        "difference": difference,
        "ci95": interval,
        "few_clusters": 0 < len(counts) < FEW_CLUSTERS,
    }


def _by_cluster(values: np.ndarray, clusters: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Sums and counts of the values of each cluster, in an order that the rows' does not touch."""
    names = np.asarray(clusters)
    if names.shape != values.shape:
        raise ValueError(f"{values.size} values need a cluster each, got {names.size}")
    _, index = np.unique(names.astype(str), return_inverse=True)
    return np.bincount(index, weights=values), np.bincount(index)


def _robust(residuals: np.ndarray, n: float) -> tuple[float, float]:
    """Cluster-robust variance of a mean over n values, from each cluster's sum of residuals, and its t quantile.

    The degrees of freedom are those of a chi-square whose variance is that of the estimated variance (Satterthwaite
    1946): few clips that hold all the errors make it uncertain, which the excess kurtosis says.
    """
    clusters = len(residuals)
    second = float((residuals**2).mean())
    variance = second * clusters**2 / (clusters - 1) / n**2
    excess = max(0.0, float((residuals**4).mean()) / second**2 - 3) if second > 0 else 0.0
    degrees = max(1.0, 2 / (2 / (clusters - 1) + excess / clusters))
    return variance, float(student_t.ppf(0.975, degrees))


def sign_flip(
    correct_a: ArrayLike, correct_b: ArrayLike, clusters: ArrayLike, resamples: int, seed: int
) -> dict[str, float]:
    """{"p_value"}: two-sided randomisation test that swaps the two models' answers on whole clips.

    It asks how often a difference as large comes from chance alone, where neither model is better; that questions of
    one clip stand and fall together does not disturb it.
    """
    differences = np.asarray(correct_a, dtype=bool).astype(int) - np.asarray(correct_b, dtype=bool)
    sums, _ = _by_cluster(differences.astype(float), clusters)
    # A clip on which the two are level is the same either way.
    sums = sums[sums != 0]
    generator = np.random.default_rng(seed)
    observed, as_large = abs(sums.sum()), 0
    step = max(1, SIGNS_AT_ONCE // max(1, len(sums)))
    for start in range(0, resamples, step):
        signs = generator.integers(0, 2, size=(min(step, resamples - start), len(sums)), dtype=np.int8) * 2.0 - 1
        as_large += int((np.abs(signs @ sums) >= observed).sum())
    return {"p_value": (as_large + 1) / (resamples + 1)}


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number (Holm 1979): where nothing differs, all stay above 5 % in 95 % of families."""
    order = np.argsort(p_values, kind="stable")
    adjusted = np.maximum.accumulate([p_values[place] * (len(order) - rank) for rank, place in enumerate(order)])
    found = np.empty(len(order))
    found[order] = np.minimum(adjusted, 1)
    return [float(value) for value in found]


def mcnemar(correct_a: ArrayLike, correct_b: ArrayLike) -> dict[str, int | float]:
    """{"only_a", "only_b", "mcnemar_p_value"}: exact two-sided test on the questions that only one of two gets right.

    It assumes that questions are independent, also those of one clip; where a model is better on some clips and
    worse on others it finds differences that are not there. `sign_flip` does not assume it.
    """
    a, b = np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool)
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    # Without a question that tells the two apart there is nothing to test.
    p_value = float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
    return {"only_a": only_a, "only_b": only_b, "mcnemar_p_value": p_value}


def deviation_interval(deviation: float | None, n: int) -> tuple[float | None, float | None]:
    """95 % interval of a standard deviation of n normal values, by chi-square: of three, half to six times it."""
    if deviation is None or n < 2:
        return None, None
    low, high = (deviation * np.sqrt((n - 1) / chi2.ppf(share, n - 1)) for share in (0.975, 0.025))
    return float(low), float(high)


def calibration(
    confidence: ArrayLike, correct: ArrayLike, clusters: ArrayLike, bins: int
) -> list[dict[str, int | float]]:
    """Per occupied bin of equal width over 0..1: {"low", "high", "confidence"} and what `accuracy` returns."""
    confidences = np.asarray(confidence, dtype=float)
    values, names = np.asarray(correct, dtype=bool), np.asarray(clusters)
    index = _bin(confidences, bins)
    rows = []
    for number in np.unique(index):
        inside = index == number
        rows.append(
            {
                "low": float(number / bins),
                "high": float((number + 1) / bins),
                "confidence": float(confidences[inside].mean()),
                **accuracy(values[inside], names[inside]),
            }
        )
    return rows


def _bin(confidences: np.ndarray, bins: int) -> np.ndarray:
    """Number of the bin of equal width over 0..1 that each value lies in; 1 belongs to the last."""
    if not np.all((confidences >= 0) & (confidences <= 1)):
        raise InputError("confidences must lie between 0 and 1: pass probabilities, not logits.")
    return np.minimum((confidences * bins).astype(int), bins - 1)


def expected_calibration_error(confidence: ArrayLike, correct: ArrayLike, bins: int) -> float | None:
    """Mean gap between confidence and accuracy over equal-width bins, weighted by n; None without any."""
    confidences, values = np.asarray(confidence, dtype=float), np.asarray(correct, dtype=bool)
    if not len(confidences):
        return None
    return _mean_gap(_bin(confidences, bins), confidences, values)


def _mean_gap(index: np.ndarray, confidences: np.ndarray, values: np.ndarray) -> float:
    """The calibration error of answers whose bins are known."""
    return float(np.abs(np.bincount(index, confidences - values)).sum() / len(values))


def calibration_uncertainty(
    confidence: ArrayLike, correct: ArrayLike, clusters: ArrayLike, bins: int, resamples: int, seed: int
) -> dict[str, Any]:
    """{"ci95", "error_if_calibrated"} of an expected calibration error; both None without questions.

    The error is a mean of distances, so that chance alone lifts it: error_if_calibrated is its mean and the end of
    its lower 95 %, in simulations where each answer is right with the probability that it is given. The interval
    goes up to the 97.5th percentile of a bootstrap over clips and as far down (resampling lifts the error once more,
    so the other percentile lies too high), and down to 0 where a calibrated model may well show as much.
    """
    confidences, values = np.asarray(confidence, dtype=float), np.asarray(correct, dtype=bool)
    if not len(confidences):
        return {"ci95": None, "error_if_calibrated": None}
    index = _bin(confidences, bins)
    generator = np.random.default_rng(seed)
    _, cluster = np.unique(np.asarray(clusters).astype(str), return_inverse=True)
    number = int(cluster.max()) + 1
    # Sums of confidence minus right, by clip and bin: an error is the sum over bins of their absolute sums, over n.
    gaps = np.zeros((number, bins))
    np.add.at(gaps, (cluster, index), confidences - values)
    counts = np.bincount(cluster)
    drawn = generator.multinomial(number, np.full(number, 1 / number), size=resamples)
    resampled = np.abs(drawn @ gaps).sum(axis=1) / (drawn @ counts)
    error = float(np.abs(gaps.sum(axis=0)).sum() / len(values))
    high = float(np.percentile(resampled, 97.5))
    calibrated = [_mean_gap(index, confidences, generator.random(len(values)) < confidences) for _ in range(resamples)]
    by_chance = float(np.percentile(calibrated, 95))
    return {
        "ci95": [0.0 if error <= by_chance else max(0.0, 2 * error - high), high],
        "error_if_calibrated": {"mean": float(np.mean(calibrated)), "percentile_95": by_chance},
    }
