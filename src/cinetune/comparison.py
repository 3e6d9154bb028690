"""Models side by side, each held against the first: from saved predictions alone.

Like is compared with like: what differs in data, split, scorer or questions is refused unless it is allowed by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd

from cinetune import page, sections
from cinetune.errors import InputError
from cinetune.metrics import CATEGORY_TITLES, compare, paired, scored
from cinetune.page import Link, Section, Table
from cinetune.published import published

ALLOWABLE = ("dataset", "split", "questions", "scorer")
WON, LOST, BOTH_WRONG = "won", "lost", "both wrong, differently"
MOST_LISTED = 40


@dataclass(frozen=True)
class Evaluation:
    """Saved results of one model; `made_from` is empty where nothing is known of it."""

    name: str
    predictions: pd.DataFrame
    summary: Mapping[str, Any]
    made_from: Mapping[str, Any]


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
    asked, also_asked = (set(evaluation.predictions["question_id"]) for evaluation in (one, other))
    alone = sorted(asked ^ also_asked)
    if alone:
        found.append(("questions", f"{len(alone)} questions were put to one of them only, first {alone[0]!r}"))
    parsers, other_parsers = (evaluation.made_from.get("parsers_hash") for evaluation in (one, other))
    if scorer != "logit" and parsers != other_parsers:
        found.append(
            ("scorer", "their words were read by different versions of the parsers (score one anew with `evaluate -P "
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
        return bool(scored(evaluation.predictions)[scorer].notna().any())
    return bool(evaluation.predictions["raw"].fillna("").str.strip().ne("").any())


def disagreements(a: Evaluation, b: Evaluation, scorer: str) -> pd.DataFrame:
    """Questions on which the two models' letters differ in worth: won, lost, or both wrong in different ways.

    `a` is the model, `b` what it is held against.
    """
    pairs = paired(scored(a.predictions), scored(b.predictions), scorer)
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
    """comparison.json: every later evaluation less the first, overall and by category."""
    first = evaluations[0]
    return {
        "scorer": scorer,
        "resampled": resample,
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
        "differences": {
            other.name: compare(other.predictions, first.predictions, scorer, bootstrap_samples, seed, resample)
            for other in evaluations[1:]
        },
    }


def write(
    folder: Path,
    evaluations: Sequence[Evaluation],
    measured: Mapping[str, Any],
    overlooked: Sequence[str],
    reference: str,
    link_of: Callable[[str], str],
) -> None:
    """Write report.md and report.html; link_of: a clip's url in the data to an address that the report can use."""
    scorer, first = measured["scorer"], evaluations[0]
    models = {evaluation.name: evaluation.summary for evaluation in evaluations}
    answered = {evaluation.name: scored(evaluation.predictions) for evaluation in evaluations}
    rows = published(reference) if reference != "none" else None
    content = [
        sections.chart_section(models, scorer, rows),
        sections.category_section(models, scorer),
        sections.readings_section(models),
    ]
    for other in evaluations[1:]:
        title, meaning = (
            f"{other.name} against {first.name}",
            f"{other.name} less {first.name} (intervals over {measured['resampled']})",
        )
        content.append(
            sections.change_section(title, meaning, (other.name, first.name), measured["differences"][other.name])
        )
        content.append(_disagreement_section(other, first, scorer, link_of))
    content += [sections.calibration_section(answered), sections.missing_section(models)]
    if rows is not None:
        content.append(sections.reference_section(rows, first.summary["dataset"]))
    content.append(sections.made_from_section({evaluation.name: evaluation.made_from for evaluation in evaluations}))
    said = sections.introduction(models, answered)
    said += [f"Differences that were overlooked, as asked: {' '.join(overlooked)}"] if overlooked else []
    page.write(folder, f"Comparison on {first.summary['dataset']}", said, content)


def _disagreement_section(a: Evaluation, b: Evaluation, scorer: str, link_of: Callable[[str], str]) -> Section:
    rows = disagreements(a, b, scorer)
    tables, counts = [], []
    for verdict in (WON, LOST, BOTH_WRONG):
        chosen = rows[rows["verdict"] == verdict]
        counts.append(f"{verdict} {len(chosen):,}")
        cells = [
            [
                Link(row["clip_id"], link_of(row["url"]))
                if isinstance(row["url"], str) and row["url"]
                else row["clip_id"],
                CATEGORY_TITLES[row["category"]],
                page.plain(row["question"]),
                row["gold"],
                page.plain(row["letter_b"]),
                page.plain(row["letter_a"]),
            ]
            for row in chosen.head(MOST_LISTED).to_dict("records")
        ]
        if cells:
            headers = [f"{verdict.capitalize()}: clip", "Category", "Question", "Right", b.name, a.name]
            tables.append(Table(headers, cells, is_prose=True))
    note = (
        f"Questions on which {a.name} and {b.name} differ: {', '.join(counts)}. At most {MOST_LISTED} of each are "
        "listed; the file of disagreements holds them all."
    )
    return Section(f"Where {a.name} and {b.name} disagree", [note], tables)
