"""Who becomes champion: a challenger that is shown not to lose more than a margin on the same questions."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from cinetune.errors import InputError
from cinetune.evaluation.paired import compare

HEADLINE = "logit"


@dataclass(frozen=True)
class Verdict:
    """`reason` is the rest of a sentence, for a version's tag."""

    has_earned: bool
    reason: str


def judge(
    ours: pd.DataFrame, theirs: pd.DataFrame, champion: str, margin: float, bootstrap_samples: int, seed: int
) -> Verdict:
    """Predictions of the challenger and of version `champion`, compared question by question.

    The lower end of the 95 % interval of the difference decides, over clips, so that a small test cannot hide a
    loss. margin is a fraction of accuracy.
    """
    try:
        found = compare(ours, theirs, HEADLINE, bootstrap_samples, seed)
    except InputError as error:
        return Verdict(False, f"it cannot be compared with version {champion}: {str(error).removesuffix('.')}")
    overall, unpaired = found["overall"], found["questions_unpaired"]
    if unpaired or not overall["n"]:
        reason = f"{unpaired} questions were answered by only one of it and version {champion}"
        return Verdict(False, f"{reason}: evaluate both on the same ones")
    low, high = overall["ci95"] or (overall["difference"],) * 2
    loss = f"a loss of more than {100 * margin:g} points"
    judgement = f"{loss} is ruled out" if low >= -margin else f"{loss} is not ruled out"
    difference = f"{100 * overall['difference']:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})"
    return Verdict(
        low >= -margin, f"{difference} against version {champion} on the same {overall['n']} questions, {judgement}"
    )
