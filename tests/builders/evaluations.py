"""Folders of evaluations."""

from __future__ import annotations

from pathlib import Path

from builders.predictions import make_predictions, predictions
from builders.served import SERVED_METRICS
from cinetune.artifacts import Evaluation
from cinetune.evaluation import metrics
from cinetune.files import folder_digest
from cinetune.params import Params

SAMPLES, SEED = 200, 3


def evaluated(name, rows, parsers="p", **summary):
    made = metrics.summarise(rows, name, "CinePile-mini", "test", "none", SAMPLES, SEED)
    return Evaluation(name, rows, {**made, **summary}, {"parsers_hash": parsers})


def base_and_finetuned():
    """Two evaluations on the same questions, of a bad model and of a good one, with markup in what they link."""
    rows = [make_predictions(skill=skill, seed=seed) for skill, seed in ((0.1, 1), (0.7, 2))]
    linked = [table.assign(url="https://example.org/a?b=<c>", question="Who <b>is</b> it?") for table in rows]
    return [evaluated("base", linked[0]), evaluated("finetuned", linked[1])]


def write_evaluation(folder: Path, adapter: Path, accuracy: float, params: Params, ablation: str | None = None) -> None:
    made_from = {"adapter_digest": folder_digest(adapter), "params": params.to_dict()}
    Evaluation(str(folder), predictions(accuracy), SERVED_METRICS | {"ablation": ablation}, made_from).write(folder)
