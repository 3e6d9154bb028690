"""Folders of evaluations."""

from __future__ import annotations

from pathlib import Path

from builders.predictions import predictions
from builders.served import SERVED_METRICS
from cinetune.artifacts import Evaluation
from cinetune.files import folder_digest
from cinetune.params import Params


def write_evaluation(folder: Path, adapter: Path, accuracy: float, params: Params, ablation: str | None = None) -> None:
    made_from = {"adapter_digest": folder_digest(adapter), "params": params.to_dict()}
    Evaluation(str(folder), predictions(accuracy), SERVED_METRICS | {"ablation": ablation}, made_from).write(folder)
