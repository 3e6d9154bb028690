"""Which version is champion: challengers are compared with it, forced, or rolled back; a model's history says why.

MLflow's own buttons may move an alias or delete a version at any time, so the alias decides and the history explains.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from cinetune.artifacts import Evaluation
from cinetune.errors import InputError
from cinetune.evaluation.promotion import Verdict, judge
from cinetune.params import Params
from cinetune.tracking import registry
from cinetune.tracking.runs import MAX_TAG_CHARS

CHALLENGER, CHAMPION = "challenger", "champion"
# On a version: why it is champion or not, as of the last time that this was decided.
REASON = "champion_reason"
# How the model's tags begin that are its history; the time follows, so that their order is that of the decisions.
HISTORY = "history "


@dataclass(frozen=True)
class Decision:
    """What became of `version`; `champion` is the one afterwards, `is_rollback` whether `version` gave way to it."""

    version: str
    champion: str
    reason: str
    is_rollback: bool = False


def promote(params: Params, version: str, evaluation: Evaluation, ask: Callable[[str], Evaluation]) -> str:
    """Set the aliases, and say on the version why it is champion or is not; that in a sentence.

    ask: evaluates a version on the questions of `evaluation`, where the champion has answered too few of them.
    """
    name = params.register.name
    champion = registry.aliases(name).get(CHAMPION)
    registry.set_alias(name, CHALLENGER, version)
    if champion == version:
        return f"version {version} is {CHALLENGER}, and {CHAMPION} already."
    verdict = _judge(params, champion, version, evaluation, ask)
    if verdict.has_earned:
        registry.set_alias(name, CHAMPION, version)
    _record(name, Decision(version, version if verdict.has_earned else champion or "", verdict.reason))
    earned = f" and {CHAMPION}" if verdict.has_earned else f", {CHAMPION} stays {champion}"
    return f"version {version} is {CHALLENGER}{earned}: {verdict.reason}."


def _judge(
    params: Params, champion: str | None, version: str, evaluation: Evaluation, ask: Callable[[str], Evaluation]
) -> Verdict:
    chosen = params.register
    if champion is None:
        return Verdict(True, "there was no champion")
    # Another version of the same adapter is no other model.
    same = [version, *registry.versions_of(chosen.name, str(evaluation.made_from.get(registry.DIGEST)))]
    undone = _rolled_back(history(chosen.name))
    rolled_back = next((undone[one] for one in same if one in undone), None)
    if rolled_back and not chosen.force:
        return Verdict(False, f"it was champion before and was rolled back (to version {rolled_back.champion})")
    found = _compared(params, champion, evaluation)
    if chosen.force:
        return Verdict(True, f"forced; without that: {found.reason}")
    if not found.needs_answers:
        return found
    try:
        theirs = ask(champion)
    except InputError as error:
        return Verdict(False, f"{found.reason}; it could not be evaluated on them now: {str(error).removesuffix('.')}")
    again = judge(evaluation.predictions, theirs.predictions, champion, chosen, params.evaluate, evaluation.task)
    return replace(again, reason=f"{again.reason}; version {champion} was evaluated for this")


def _compared(params: Params, champion: str, evaluation: Evaluation) -> Verdict:
    """With what the champion answered when it was registered."""
    chosen = params.register
    try:
        with tempfile.TemporaryDirectory() as scratch:
            folder = registry.fetch_evaluation(chosen.name, champion, Path(scratch))
            theirs = Evaluation.open(folder, f"version {champion}")
    except InputError:
        gone = f"the predictions of version {champion} are gone, so the two cannot be compared"
        return Verdict(False, gone, needs_answers=True)
    return judge(evaluation.predictions, theirs.predictions, champion, chosen, params.evaluate, evaluation.task)


def roll_back(name: str, version: str = "") -> tuple[str, str]:
    """The version that is champion again, and that in a sentence.

    version: which one; empty for the champion before. Raises InputError where there is none.
    """
    champion = registry.aliases(name).get(CHAMPION)
    there = registry.numbers(name)
    if not there or (version and version not in there):
        remedy = f"choose from {', '.join(there)}" if there else "register one first"
        raise InputError(f"there is no version {version}{' ' if version else ''}of {name!r}: {remedy}.")
    target = version or _before(name, champion, there)
    if target == champion:
        raise InputError(f"version {target} of {name!r} is champion already: nothing can be rolled back.")
    registry.set_alias(name, CHAMPION, target)
    reason = f"rolled back to version {target}"
    _record(name, Decision(champion or target, target, reason if champion else "there was no champion", bool(champion)))
    return target, f"{CHAMPION} is version {target} again, {f'no longer {champion}' if champion else 'there was none'}."


def _before(name: str, champion: str | None, there: Sequence[str]) -> str:
    """The last champion before this one among the versions that are there."""
    line = [version for version in _line(history(name)) if version in there]
    if champion and line[-1:] != [champion]:
        # It was made champion by hand.
        line.append(champion)
    before = [version for version in line if version != champion]
    if not before:
        told = f"champion {champion} of {name!r} follows no other version" if champion else f"{name!r} has no champion"
        raise InputError(f"{told}: name the version to go back to with -P version=<number>.")
    return before[-1]


def _line(decisions: Sequence[Decision]) -> list[str]:
    """The champions one after another, without those that were rolled back."""
    line: list[str] = []
    for decision in decisions:
        if decision.is_rollback:
            places = [place for place, version in enumerate(line) if version == decision.champion]
            line = line[: places[-1]] if places else line[:-1]
        if decision.champion and line[-1:] != [decision.champion]:
            line.append(decision.champion)
    return line


def _rolled_back(decisions: Sequence[Decision]) -> dict[str, Decision]:
    """Those that were rolled back and have not become champion since."""
    found = {}
    for decision in decisions:
        if decision.is_rollback:
            found[decision.version] = decision
        found.pop(decision.champion, None)
    return found


def history(name: str) -> list[Decision]:
    """All that was decided about a model's versions, oldest first."""
    tags = registry.model_tags(name)
    decisions = (_read(tags[key]) for key in sorted(tags) if key.startswith(HISTORY))
    return [decision for decision in decisions if decision is not None]


def _read(tag: str) -> Decision | None:
    """None for what a person has written there."""
    try:
        return Decision(**json.loads(tag))
    except (ValueError, TypeError):
        return None


def _record(name: str, decision: Decision) -> None:
    # What MLflow's tags hold, with room for the rest.
    reason = decision.reason[: MAX_TAG_CHARS // 2]
    registry.tag_version(name, decision.version, REASON, reason)
    if decision.is_rollback:
        registry.tag_version(name, decision.champion, REASON, f"champion again, in the place of {decision.version}")
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
    registry.tag_model(name, f"{HISTORY}{now}", json.dumps(asdict(decision) | {"reason": reason}))
