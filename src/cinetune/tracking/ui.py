"""How MLflow's UI shows the experiment: a note, and views with the columns that matter."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

NOTE = "One run a loop, a run below it for each stage that ran. **Views** has *Overview*, *Trainings*, *Evaluations*."
# MLflow's own names of what it keeps with an experiment and with a run.
NOTE_TAG, VIEW_TAG = "mlflow.note.content", "mlflow.sharedViewState."


NAME, CREATED, DATASET, DURATION = "attributes.`Run Name`", "runDateAndNestInfo", "attributes.`Dataset`", "duration"
WIDTHS = {NAME: 230, CREATED: 135, DATASET: 135, DURATION: 75}
USUAL_WIDTH = 100
# What can be hidden goes by another name there than what has a width.
SELECTED = {DURATION: "attributes.`Duration`"}


@dataclass(frozen=True)
class View:
    title: str
    search: str
    columns: Sequence[str]


VIEWS = {
    "overview": View(
        "Overview",
        "",
        (
            DATASET,
            DURATION,
            "metrics.`base/accuracy`",
            "metrics.`finetuned/accuracy`",
            "metrics.`test/accuracy`",
            "metrics.`validation/accuracy`",
        ),
    ),
    "trainings": View(
        "Trainings",
        "tags.stage = 'train'",
        (
            DURATION,
            "metrics.`best/validation_accuracy`",
            "metrics.`train/loss`",
            "metrics.`train/questions_per_s`",
            "params.`train.epochs`",
            "params.`train.learning_rate`",
            "params.`train.lora_rank`",
            "params.`train.seed`",
        ),
    ),
    "evaluations": View(
        "Evaluations",
        "tags.stage = 'evaluate'",
        (
            DATASET,
            "metrics.`test/accuracy`",
            "metrics.`test/ci_low`",
            "metrics.`test/ci_high`",
            "metrics.`test/strict/accuracy`",
            "metrics.`test/strict/unparsed`",
            "params.`evaluate.model`",
            "params.`evaluate.ablation`",
        ),
    ),
}


def tags(now_ms: int) -> dict[str, str]:
    """The tags that an experiment carries for it; `now_ms` (since 1970) is when the views were made."""
    found = {NOTE_TAG: NOTE}
    for key, view in VIEWS.items():
        order = [NAME, CREATED, *view.columns]
        state = {
            "searchFilter": view.search,
            "selectedColumns": [SELECTED.get(column, column) for column in view.columns],
            "columnOrder": order,
            "columnWidths": {column: WIDTHS.get(column, USUAL_WIDTH) for column in order},
        }
        content = {"name": view.title, "createdAt": now_ms, "updatedAt": now_ms, "state": json.dumps(state)}
        found[f"{VIEW_TAG}{key}"] = json.dumps(content)
    return found
