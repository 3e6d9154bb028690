"""An evaluation's tables from a server's replies, and what they took: tokens, cost, refusals, failures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from cinetune.evaluation import ablations as ablations_module
from cinetune.evaluation import predictions
from cinetune.inference.server.reply import KINDS, ServerReply
from cinetune.task.description import Task
from cinetune.task.questions import ClipQuestions

Replies = Mapping[tuple[str, str], ServerReply]


def table_of(
    clips: Sequence[ClipQuestions],
    task: Task,
    replies: Replies,
    missing: Mapping[str, str],
    lost: Mapping[tuple[str, str], str],
    ablation: str,
) -> pd.DataFrame:
    """Predictions in the order of the questions; missing: reasons by clip; a lost question is missing as well."""
    rotation = ablations_module.rotation_of(ablation)
    rows: list[dict[str, Any]] = []
    for clip in clips:
        for question in clip.questions:
            key = question.question_id, ablation
            if clip.clip_id in missing or key not in replies:
                reason = missing.get(clip.clip_id) or f"the server gave no reply: {lost.get(key, 'not asked')}"
                rows.append(predictions.missing_row(clip, question, reason, rotation))
                continue
            shares, mass = replies[key].shares(len(question.choices))
            rows.append(predictions.answered_row(clip, question, replies[key].raw, shares, rotation, mass))
    return predictions.as_table(rows, task)


def account(replies: Replies, ablation: str, prices: tuple[float, float] | None) -> dict[str, Any]:
    """What metrics.json says of the server: which models answered, kinds of replies, failures, tokens, cost."""
    mine = [reply for (_, name), reply in replies.items() if name == ablation]
    read, written = sum(reply.prompt_tokens for reply in mine), sum(reply.completion_tokens for reply in mine)
    kinds = Counter(reply.kind for reply in mine)
    failures: Counter[str] = Counter()
    for reply in mine:
        failures.update(reply.failures)
    return {
        "models": sorted({reply.model for reply in mine} - {""}),
        "fingerprints": sorted({reply.fingerprint for reply in mine} - {""}),
        "replies": {kind: kinds[kind] for kind in KINDS},
        "cut": sum(reply.ended == "length" for reply in mine),
        "failures": dict(sorted(failures.items())),
        "prompt_tokens": read,
        "completion_tokens": written,
        "cost": None if prices is None else (read * prices[0] + written * prices[1]) / 1e6,
    }


def told(server: Mapping[str, Any]) -> str:
    """An account in a line."""
    kinds = ", ".join(f"{count} {kind}" for kind, count in server["replies"].items() if count) or "no replies"
    failures = ", ".join(f"{reason} {count}" for reason, count in server["failures"].items())
    cost = "" if server["cost"] is None else f", {server['cost']:.4f} in all"
    again = f"; asked again: {failures}" if failures else ""
    tokens = f"{server['prompt_tokens']} tokens read and {server['completion_tokens']} written{cost}"
    return f"{' and '.join(server['models']) or 'a model without a name'}: {kinds}; {tokens}{again}"


def mlflow_metrics(server: Mapping[str, Any], split: str) -> dict[str, float]:
    counts = {**server["replies"], "cut": server["cut"], "failures": sum(server["failures"].values())}
    tokens = {name: server[name] for name in ("prompt_tokens", "completion_tokens")}
    cost = {} if server["cost"] is None else {"cost": server["cost"]}
    return {f"{split}/server/{name}": value for name, value in {**counts, **tokens, **cost}.items()}
