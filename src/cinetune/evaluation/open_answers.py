"""Open questions: how far an answer in words is the one that the data has.

Exact match and the overlap of words are what they say: another wording of the right answer counts as wrong, or in part.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from cinetune.evaluation.statistics import accuracy
from cinetune.task.description import Task

ARTICLES = {"a", "an", "the"}
NOTE = "exact: the same words but for case, marks and English articles; token match: F1 of the words that both have"


def tokens(text: str) -> list[str]:
    """The words that count: without case, marks and English articles, whatever Unicode form they have."""
    words = re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold())
    # A text of articles alone is not nothing.
    return [word for word in words if word not in ARTICLES] or words


def token_match(said: str, right: str) -> float:
    """F1 of the words of two texts, each as often as it stands there, 0 to 1; 1 where neither has any."""
    own, others = Counter(tokens(said)), Counter(tokens(right))
    if not own and not others:
        return 1.0
    shared = sum((own & others).values())
    return 2 * shared / (sum(own.values()) + sum(others.values()))


def measure(rows: pd.DataFrame, resampled: str, task: Task) -> dict[str, Any]:
    """{"n", "exact", "token_match", "note"}; rows: of open questions, with `raw` and the right `words`.

    exact: a score as of `statistics.accuracy`, clustered by clip or group; token_match: the mean, None without rows.
    """
    pairs = list(zip(rows["raw"].fillna("").astype(str), rows["words"].astype(str), strict=True))
    exact = np.array([tokens(said) == tokens(right) for said, right in pairs], dtype=bool)
    clusters = rows["clip_id" if resampled == "clips" else task.group].astype(str).to_numpy()
    shares = [token_match(said, right) for said, right in pairs]
    return {
        "n": len(pairs),
        "exact": accuracy(exact, clusters),
        "token_match": float(np.mean(shares)) if shares else None,
        "note": NOTE,
    }


def headline(measured: Mapping[str, Any]) -> list[str]:
    """A sentence, where any open question was asked."""
    if not measured["n"]:
        return []
    exact, share = measured["exact"]["accuracy"], measured["token_match"]
    return [f"open questions: {exact:.1%} exact, {share:.1%} token match, of {measured['n']}."]
