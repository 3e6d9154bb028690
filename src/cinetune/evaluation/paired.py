"""Two or more predictions of the same questions, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from cinetune.errors import InputError
from cinetune.evaluation.metrics import CLIPS, cluster_names, is_correct, num_choices, scored
from cinetune.evaluation.statistics import holm, mcnemar, paired_difference, sign_flip
from cinetune.task.description import CINEPILE, LETTERS, Task

# Columns that two predictions of one question have in common.
SHARED = ("clip_id", "category", "question", "url", "question_digest")
# What must be the same in both, and what it is called.
AGREEING = {
    "clip_id": "clip id",
    "category": "category",
    "right_option": "right option",
    "question": "text",
    "question_digest": "text or options",
}


def compare(
    predictions_a: pd.DataFrame,
    predictions_b: pd.DataFrame,
    scorer: str,
    bootstrap_samples: int,
    seed: int,
    resample: str = CLIPS,
    task: Task = CINEPILE,
) -> dict[str, Any]:
    """Two models on the questions that both answered, as "overall", "categories" and "questions_unpaired".

    "clusters" says how many clips or groups these are of.

    Each part is `paired_difference` (a minus b), `sign_flip` and `mcnemar` together; a category's "p_value_holm" is
    adjusted for the number of categories that have questions. Raises InputError where the two do not
    agree on a question's clip, category or right option: they were made from different data.
    """
    rows_a, rows_b = scored(predictions_a, task), scored(predictions_b, task)
    pairs = paired(rows_a, rows_b, scorer, task)
    clusters = cluster_names(pairs, resample, task)
    right_a, right_b = pairs["is_right_a"].to_numpy(), pairs["is_right_b"].to_numpy()

    def part(mask: np.ndarray) -> dict[str, Any]:
        a, b, of_clusters = right_a[mask], right_b[mask], clusters[mask]
        return (
            paired_difference(a, b, of_clusters) | sign_flip(a, b, of_clusters, bootstrap_samples, seed) | mcnemar(a, b)
        )

    category = pairs["category"].to_numpy()
    categories = {short: part(category == short) for short in task.categories}
    adjust([row for row in categories.values() if row["n"]])
    return {
        "overall": part(np.ones(len(pairs), dtype=bool)),
        "categories": categories,
        "questions_unpaired": len(rows_a) + len(rows_b) - 2 * len(pairs),
        "clusters": len(set(clusters)),
    }


def shared_questions(a: pd.DataFrame, b: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, int]:
    """Predictions of the questions that were put to both models, and how many were put to one of them only.

    A question is known by its clip, text and options: a row that was added before it, or a repaired neighbour, gives
    it another id and leaves it the same. Without digests, as in older predictions, it is known by its id.
    """
    tables = (a, b)
    if all("question_digest" in rows and rows["question_digest"].notna().all() for rows in tables):
        tables = (_known_by_content(a), _known_by_content(b))
    ids = [set(rows["question_id"]) for rows in tables]
    both = ids[0] & ids[1]
    kept = [rows[rows["question_id"].isin(both)].reset_index(drop=True) for rows in tables]
    return kept[0], kept[1], len(ids[0] ^ ids[1])


def _known_by_content(rows: pd.DataFrame) -> pd.DataFrame:
    content = rows["clip_id"].astype(str) + " " + rows["question_digest"].astype(str)
    # One that a clip has twice is two.
    number = content.groupby(content).cumcount().astype(str)
    return rows.assign(question_id=content + " " + number)


def adjust(rows: Sequence[dict[str, Any]]) -> None:
    """Give each row of a table its p-value by Holm, "p_value_holm"."""
    for row, value in zip(rows, holm([row["p_value"] for row in rows]), strict=True):
        row["p_value_holm"] = value


def paired(rows_a: pd.DataFrame, rows_b: pd.DataFrame, scorer: str, task: Task = CINEPILE) -> pd.DataFrame:
    """Rows of `scored` side by side, by question_id: what they share, then letter, is_right and the rest by side.

    Raises InputError where the two do not agree on a question's clip, category, right option, text or options.
    """
    sides = {"a": _side(rows_a, scorer, task), "b": _side(rows_b, scorer, task)}
    pairs = sides["a"].merge(sides["b"], on="question_id", suffixes=("_a", "_b"))
    for name, told in AGREEING.items():
        a, b = pairs[f"{name}_a"], pairs[f"{name}_b"]
        # Predictions made before there were digests have at most the text.
        differing = pairs.loc[a.notna() & b.notna() & (a != b), "question_id"]
        if len(differing):
            raise InputError(
                f"question {differing.iloc[0]!r} has another {told} in each of the two predictions: "
                "evaluate both models on the same data."
            )
    shared = [name for name in (*SHARED, task.group, "right_option") if f"{name}_a" in pairs.columns]
    pairs = pairs.drop(columns=[f"{name}_b" for name in shared])
    return pairs.rename(columns={f"{name}_a": name for name in shared})


def _side(rows: pd.DataFrame, scorer: str, task: Task) -> pd.DataFrame:
    rotation = rows["rotation"] if "rotation" in rows.columns else 0
    gold = rows["gold"].map(LETTERS.index).astype(int)
    return rows.reindex(columns=["question_id", *SHARED, task.group, "gold", "raw"]).assign(
        letter=rows[scorer],
        is_right=is_correct(rows, scorer),
        # The place of the right option in the data, wherever it stood when it was asked.
        right_option=(gold + rotation) % num_choices(rows, task),
    )


def agreement_of_rotations(tables: Mapping[str, pd.DataFrame], scorer: str, task: Task = CINEPILE) -> dict[str, Any]:
    """How much a choice depends on where its option stands.

    {"n", "consistent", "pairs_agreeing", "places", "accuracy_by_place", "spread_by_place"}.

    `tables`: predictions under several rotations. consistent: share of questions for which every rotation chose
    the same option; pairs_agreeing: the mean over pairs of rotations; places: the share of choices that fell on
    each letter, over all rotations; accuracy_by_place: the share of right choices where the right option stands at
    each letter; spread_by_place: the greatest of them minus the least. Only questions that every rotation answered
    count for the first three; an unparsed reply agrees with nothing.
    """
    columns = {}
    for name, predictions in tables.items():
        rows = scored(predictions, task).set_index("question_id")
        place = rows[scorer].map(lambda letter: LETTERS.index(letter) if isinstance(letter, str) else np.nan)
        columns[name] = (place + rows["rotation"]) % num_choices(rows, task)
    chosen = pd.concat(columns, axis=1, join="inner").to_numpy(dtype=float)
    number = chosen.shape[1]
    agreeing = [chosen[:, one] == chosen[:, other] for one in range(number) for other in range(one + 1, number)]
    asked = pd.concat([scored(predictions, task) for predictions in tables.values()])
    counts = {letter: int((asked[scorer] == letter).sum()) for letter in task.letters}
    total = sum(counts.values())
    right = (asked[scorer] == asked["gold"]).groupby(asked["gold"]).mean()
    n = len(chosen)
    return {
        "n": n,
        "consistent": float((chosen == chosen[:, :1]).all(axis=1).mean()) if n else None,
        "pairs_agreeing": float(np.mean(agreeing)) if n and agreeing else None,
        "places": {letter: count / total if total else None for letter, count in counts.items()},
        "accuracy_by_place": {letter: float(right[letter]) if letter in right else None for letter in task.letters},
        "spread_by_place": float(right.max() - right.min()) if len(right) else None,
    }
