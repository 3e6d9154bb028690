"""Who becomes champion: a challenger that is shown not to lose more than a margin on the same questions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from cinetune.errors import InputError
from cinetune.evaluation.metrics import CLIPS
from cinetune.evaluation.paired import compare, shared_questions
from cinetune.params import EvaluateParams, RegisterParams
from cinetune.task.description import CINEPILE, Task

# A model that wins letters and loses answers given in words is no better; neither is the reverse.
JUDGED_BY = ("logit", "lenient")


@dataclass(frozen=True)
class Verdict:
    """`reason` is the rest of a sentence, for a version's tag.

    needs_answers: the champion's to the challenger's questions would tell more.
    """

    has_earned: bool
    reason: str
    needs_answers: bool = False


def judge(
    ours: pd.DataFrame,
    theirs: pd.DataFrame,
    champion: str,
    rules: RegisterParams,
    statistics: EvaluateParams,
    task: Task = CINEPILE,
) -> Verdict:
    """Predictions of the challenger and of version `champion`, compared on the questions that were put to both.

    The lower end of the 95 % interval of the difference decides, over clips or groups, so that a small test cannot
    hide a loss. The first rule that is broken is the reason.
    """
    resample = CLIPS if statistics.resample == CLIPS else task.groups
    drawn = statistics.bootstrap_samples, statistics.seed, resample
    ours, theirs, alone = shared_questions(ours, theirs)
    shared = len(ours) / max(1, len(ours) + alone)
    if shared < rules.min_shared or not len(ours):
        few = f"{len(ours)} of {len(ours) + alone} questions were put to both it and version {champion}"
        return Verdict(False, f"{few}, and register.min_shared asks for {rules.min_shared:.0%}", needs_answers=True)
    try:
        found = {scorer: compare(ours, theirs, scorer, *drawn, task) for scorer in JUDGED_BY}
    except InputError as error:
        return Verdict(False, f"it cannot be compared with version {champion}: {str(error).removesuffix('.')}")
    against = f"against version {champion} on the same {found['logit']['overall']['n']} questions"
    against += f" ({alone} more were put to one of them only)" if alone else ""
    broken = next(_broken(found, _missing(ours, theirs), champion, rules, resample, task.titles), None)
    if broken:
        return Verdict(False, broken.format(against=against))
    changes = " and ".join(f"{_points(found[scorer]['overall'])} by {scorer}" for scorer in JUDGED_BY)
    missing = _missing(ours, theirs)
    unasked = f" ({missing:.0%} are missing in both)" if missing else ""
    loss = f"a loss of more than {100 * rules.margin:g} points is ruled out"
    return Verdict(True, f"{changes} {against}{unasked}, {loss}")


def _broken(
    found: dict[str, dict[str, Any]],
    missing: float,
    champion: str,
    rules: RegisterParams,
    resample: str,
    titles: Mapping[str, str],
) -> Iterator[str]:
    first = found["logit"]
    if missing > rules.max_missing:
        yield (
            f"{missing:.0%} of the questions are missing in its evaluation and in that of version {champion}, more "
            f"than register.max_missing ({rules.max_missing:.0%}) allows"
        )
    if first["clusters"] < rules.min_clips:
        yield (
            f"it and version {champion} are compared on {first['clusters']} {resample}, and register.min_clips asks "
            f"for {rules.min_clips}"
        )
    for scorer, comparison in found.items():
        overall = comparison["overall"]
        if overall["ci95"][0] < -rules.margin:
            loss = f"a loss of more than {100 * rules.margin:g} points is not ruled out"
            yield f"{_points(overall)} by {scorer} {{against}}, {loss}"
    for scorer, comparison in found.items():
        for short, part in comparison["categories"].items():
            if part["n"] and part["ci95"][1] < -rules.category_margin:
                loss = f"a loss of more than {100 * rules.category_margin:g} points in a category"
                yield f"{titles[short]} {_points(part)} by {scorer} {{against}}, {loss}"


def _missing(ours: pd.DataFrame, theirs: pd.DataFrame) -> float:
    """The share of all questions that were not answered by both."""
    asked = set(ours["question_id"]) | set(theirs["question_id"])
    answered = [set(rows.loc[rows["status"] == "ok", "question_id"]) for rows in (ours, theirs)]
    return 1 - len(answered[0] & answered[1]) / len(asked) if asked else 0.0


def _points(part: dict[str, Any]) -> str:
    low, high = part["ci95"]
    return f"{100 * part['difference']:+z.1f} points ({100 * low:+z.1f} to {100 * high:+z.1f})"
