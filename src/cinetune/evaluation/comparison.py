"""Models side by side, each compared with the first: from saved predictions alone.

Like is compared with like: what differs in data, split, scorer or questions is refused unless it is allowed by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import pandas as pd

from cinetune.artifacts import Evaluation
from cinetune.errors import InputError
from cinetune.evaluation.metrics import CLIPS, SCORERS, scored
from cinetune.evaluation.paired import compare, paired

ALLOWABLE = ("dataset", "split", "questions", "scorer")
WON, LOST, BOTH_WRONG = "won", "lost", "both wrong, differently"


def read_names(text: str) -> list[str]:
    """Names between commas or spaces; raises InputError for one that stands twice."""
    names = text.replace(",", " ").split()
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise InputError(f"compare.runs names {sorted(twice)[0]!r} twice: name different evaluations.")
    return names


def read_allowed(text: str) -> tuple[str, ...]:
    words = text.replace(",", " ").split()
    unknown = [word for word in words if word not in ALLOWABLE]
    if unknown:
        raise InputError(f"compare.allow names {unknown[0]!r}: choose from {', '.join(ALLOWABLE)}.")
    return tuple(words)


def check_alike(evaluations: Sequence[Evaluation], scorer: str, allowed: Sequence[str]) -> list[str]:
    """The differences that were allowed, a sentence each. Raises InputError at the first that was not."""
    if len(evaluations) < 2:
        raise InputError('compare.runs needs two evaluations or more: write -P runs="base finetuned".')
    overlooked = []
    for one, other in combinations(evaluations, 2):
        for kind, difference in _differences(one, other, scorer):
            if kind not in allowed:
                raise InputError(
                    f"{one.name!r} and {other.name!r} are not alike: {difference}; evaluate both alike, or overlook "
                    f"it with -P allow={kind}."
                )
            overlooked.append(f"{one.name} and {other.name}: {difference}.")
    return overlooked


def _differences(one: Evaluation, other: Evaluation, scorer: str) -> list[tuple[str, str]]:
    found = [
        (kind, f"the {kind} is {one.summary[kind]!r} for one and {other.summary[kind]!r} for the other")
        for kind in ("dataset", "split")
        if one.summary[kind] != other.summary[kind]
    ]
    ids, other_ids = (set(evaluation.predictions["question_id"]) for evaluation in (one, other))
    alone = sorted(ids ^ other_ids)
    if alone:
        found.append(("questions", f"{len(alone)} questions were put to one of them only, first {alone[0]!r}"))
    parsers, other_parsers = (evaluation.made_from.get("parsers_hash") for evaluation in (one, other))
    if scorer != "logit" and parsers != other_parsers:
        found.append(
            ("scorer", "their words were read by different versions of the parsers (rescore one with `evaluate -P "
             "model=<its predictions.parquet>`)")
        )  # fmt: skip
    can_score = [_has_replies(evaluation, scorer) for evaluation in (one, other)]
    if can_score[0] != can_score[1]:
        without = (one, other)[can_score.index(False)].name
        found.append(("scorer", f"{without!r} has no reply that {scorer!r} could judge"))
    return found


def _has_replies(evaluation: Evaluation, scorer: str) -> bool:
    """Probabilities for `logit`, words for the others; words that cannot be read are replies too, and wrong ones."""
    if scorer == "logit":
        return bool(scored(evaluation.predictions, evaluation.task)[scorer].notna().any())
    return bool(evaluation.predictions["raw"].fillna("").str.strip().ne("").any())


def disagreements(a: Evaluation, b: Evaluation, scorer: str) -> pd.DataFrame:
    """Questions on which the two models disagree: won, lost, or both wrong in different ways.

    `a` is the model, `b` its baseline.
    """
    pairs = paired(scored(a.predictions, a.task), scored(b.predictions, b.task), scorer, a.task)
    letters = pairs["letter_a"].fillna("") != pairs["letter_b"].fillna("")
    right_a, right_b = pairs["is_right_a"], pairs["is_right_b"]
    verdict = pd.Series("", index=pairs.index, dtype=object)
    verdict[right_a & ~right_b] = WON
    verdict[right_b & ~right_a] = LOST
    verdict[~right_a & ~right_b & letters] = BOTH_WRONG
    columns = [
        "question_id",
        "clip_id",
        "url",
        "category",
        "question",
        "gold_a",
        "letter_a",
        "letter_b",
        "raw_a",
        "raw_b",
    ]
    chosen = pairs.assign(verdict=verdict)[["verdict", *columns]].rename(columns={"gold_a": "gold"})
    return chosen[chosen["verdict"] != ""].reset_index(drop=True)


def measure(
    evaluations: Sequence[Evaluation], scorer: str, bootstrap_samples: int, seed: int, resample: str
) -> dict[str, Any]:
    """comparison.json: every later evaluation minus the first, overall and by category."""
    first = evaluations[0]

    def difference(other: Evaluation, chosen: str) -> dict[str, Any]:
        return compare(other.predictions, first.predictions, chosen, bootstrap_samples, seed, resample, first.task)

    by_scorer = {
        other.name: {
            name: difference(other, name)
            for name in SCORERS
            if name == scorer or all(_has_replies(evaluation, name) for evaluation in (other, first))
        }
        for other in evaluations[1:]
    }
    return {
        "scorer": scorer,
        "resampled": CLIPS if resample == CLIPS else first.task.groups,
        "against": first.name,
        "models": {
            evaluation.name: {
                "model": evaluation.summary["model"],
                "dataset": evaluation.summary["dataset"],
                "split": evaluation.summary["split"],
                "ablation": evaluation.summary["ablation"],
                "overall": evaluation.summary["scorers"][scorer]["overall"],
            }
            for evaluation in evaluations
        },
        "differences": {name: found[scorer] for name, found in by_scorer.items()},
        # Those that both models have replies for: a change under one scorer alone may be one of form.
        "differences_by_scorer": by_scorer,
        "differing_answers": {other.name: len(disagreements(other, first, scorer)) for other in evaluations[1:]},
    }


def mlflow_metrics(label: str, difference: Mapping[str, Any], by_scorer: Mapping[str, Any]) -> dict[str, float | None]:
    """One of the differences as MLflow metrics: `difference/<label>`, its interval, p-value, categories and scorers."""
    overall = difference["overall"]
    low, high = overall["ci95"] or (None, None)
    found = {"": overall["difference"], "/ci_low": low, "/ci_high": high, "/p_value": overall["p_value"]}
    found |= {f"/{short}": part["difference"] for short, part in difference["categories"].items()}
    found |= {f"/{scorer}": part["overall"]["difference"] for scorer, part in by_scorer.items()}
    return {f"difference/{label}{name}": value for name, value in found.items()}


def file_name(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name).strip("-.")[-60:].strip("-.") or "model"
