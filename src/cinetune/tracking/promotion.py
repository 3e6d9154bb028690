"""Which version is champion: challengers are compared with it, forced, or rolled back."""

from __future__ import annotations

import pandas as pd

from cinetune.artifacts import Evaluation
from cinetune.errors import InputError
from cinetune.evaluation.promotion import Verdict, judge
from cinetune.params import Params
from cinetune.tracking import registry

CHALLENGER, CHAMPION = "challenger", "champion"
# The version's run keeps what it answered, for the next challenger to be compared with.
PREDICTIONS = "evaluation/predictions.parquet"
# On a version: why it is champion or not, which one it followed, why it is champion no more.
REASON, BEFORE, ROLLED_BACK = "champion_reason", "champion_before", "rolled_back"


def promote(params: Params, version: str, evaluation: Evaluation) -> str:
    """Set the aliases, and say on the version why it is champion or is not; that in a sentence."""
    name = params.register.name
    champion = registry.aliases(name).get(CHAMPION)
    registry.set_alias(name, CHALLENGER, version)
    if champion == version:
        return f"version {version} is {CHALLENGER}, and {CHAMPION} already."
    verdict = _judge(params, champion, version, evaluation)
    registry.tag_version(name, version, REASON, verdict.reason)
    if verdict.has_earned:
        if champion:
            registry.tag_version(name, version, BEFORE, champion)
        registry.set_alias(name, CHAMPION, version)
    earned = f" and {CHAMPION}" if verdict.has_earned else f", {CHAMPION} stays {champion}"
    return f"version {version} is {CHALLENGER}{earned}: {verdict.reason}."


def _judge(params: Params, champion: str | None, version: str, evaluation: Evaluation) -> Verdict:
    chosen = params.register
    if champion is None:
        return Verdict(True, "there was no champion")
    theirs = registry.read_artifact(chosen.name, champion, PREDICTIONS, pd.read_parquet)
    if theirs is None:
        found = Verdict(False, f"the predictions of version {champion} are gone, so the two cannot be compared")
    else:
        found = judge(evaluation.predictions, theirs, champion, chosen, params.evaluate)
    if chosen.force:
        return Verdict(True, f"forced; without that: {found.reason}")
    rolled_back = registry.version_tags(chosen.name, version).get(ROLLED_BACK)
    if rolled_back:
        return Verdict(False, f"it was champion before and was rolled back ({rolled_back})")
    return found


def roll_back(name: str) -> tuple[str, str]:
    """The version that is champion again, and that in a sentence. Raises InputError where there is none before."""
    champion = registry.aliases(name).get(CHAMPION)
    if champion is None:
        raise InputError(f"model {name!r} has no champion: nothing can be rolled back.")
    before = registry.version_tags(name, champion).get(BEFORE)
    if before is None:
        raise InputError(f"champion {champion} of {name!r} follows no other version: nothing can be rolled back.")
    registry.tag_version(name, champion, ROLLED_BACK, f"to version {before}")
    registry.set_alias(name, CHAMPION, before)
    return before, f"{CHAMPION} is version {before} again, no longer {champion}."
