"""How MLflow's UI shows the experiment: a note, and views with the columns that matter."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

NOTE = "One run a loop, a run below it for each stage that ran. **Views** has *Overview*, *Trainings*, *Evaluations*."
# MLflow's own names of what it keeps with an experiment and with a run.
NOTE_TAG, VIEW_TAG = "mlflow.note.content", "mlflow.sharedViewState."


NAME, CREATED, DATASET, DURATION = "attributes.`Run Name`", "runDateAndNestInfo", "attributes.`Dataset`", "duration"
FAILURE = "tags.`failure`"
WIDTHS = {NAME: 230, CREATED: 135, DATASET: 135, DURATION: 75, FAILURE: 300}
USUAL_WIDTH = 100
# What can be hidden goes by another name there than what has a width.
SELECTED = {DURATION: "attributes.`Duration`"}


@dataclass(frozen=True)
class View:
    """`order`: the column that rows stand by, highest first; empty for the newest first.

    By time, rows below others are folded away under them, whichever are searched for; by a column they are not.
    """

    title: str
    search: str
    columns: Sequence[str]
    order: str = ""


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
            FAILURE,
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
        "metrics.`best/validation_accuracy`",
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
        "metrics.`test/accuracy`",
    ),
}


def tags(now_ms: int) -> dict[str, str]:
    """The tags that an experiment carries for it; `now_ms` (since 1970) is when the views were made."""
    found = {NOTE_TAG: NOTE}
    for key, view in VIEWS.items():
        order = [NAME, CREATED, *view.columns]
        state = {
            "searchFilter": view.search,
            **({"orderByKey": view.order, "orderByAsc": False} if view.order else {}),
            "selectedColumns": [SELECTED.get(column, column) for column in view.columns],
            "columnOrder": order,
            "columnWidths": {column: WIDTHS.get(column, USUAL_WIDTH) for column in order},
            # Of charts those of the metrics that there are: MLflow would begin with sections that stay empty.
            "compareRunCharts": [],
            "compareRunSections": [],
        }
        content = {"name": view.title, "createdAt": now_ms, "updatedAt": now_ms, "state": json.dumps(state)}
        found[f"{VIEW_TAG}{key}"] = json.dumps(content)
    return found


def is_older_view(known: str, now: str) -> bool:
    """Whether an experiment's tag is a view of an earlier release; what people save goes by other names."""
    try:
        return bool(json.loads(known)["state"] != json.loads(now)["state"])
    except (ValueError, TypeError, KeyError):
        # Not a view: the note, which a person may have written.
        return False
