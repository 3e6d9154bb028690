"""The base and the fine-tuned model side by side, from saved predictions and metrics, beside published results.

Nothing here depends on when or where it ran: the same predictions give the same bytes.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from cinetune.errors import InputError
from cinetune.evaluation.metrics import (
    CALIBRATION_BINS,
    CLIPS,
    SCORERS,
    confidences,
    is_correct,
    letter_counts,
    scored,
)
from cinetune.evaluation.paired import compare
from cinetune.evaluation.published import published
from cinetune.evaluation.statistics import calibration, expected_calibration_error
from cinetune.report import formatting, rendering, sections
from cinetune.report.rendering import Picture, Section, Table
from cinetune.report.sections import HEADLINE, Models
from cinetune.task.description import CINEPILE, Task

BASE, FINETUNED = "base", "fine-tuned"
PICTURE_HEIGHT = 112  # pixels at most

FramesOf = Callable[[str], np.ndarray | None]


def markdown_table(rows: Sequence[Mapping[str, Any]], task: Task = CINEPILE) -> str:
    """Model, Average and the task's categories, in percent with one decimal.

    A row maps "model" and the column keys to percent (a number, as published) or to a score of metrics.json
    (fractions, shown with their interval). A missing cell is a dash.
    """
    return rendering.markdown(sections.results_table(rows, task))


def console(base: Mapping[str, Any], finetuned: Mapping[str, Any], reference: str) -> str:
    """`console_table` beside the published rows that `reference` names ("none" for none)."""
    task = sections.task_of({FINETUNED: finetuned})
    return console_table(base, finetuned, published(reference, task))


def console_table(
    metrics_base: Mapping[str, Any], metrics_finetuned: Mapping[str, Any], reference: pd.DataFrame | None
) -> str:
    """The result as aligned plain text; published rows follow under a heading of their own."""
    models = {BASE: metrics_base, FINETUNED: metrics_finetuned}
    task, columns = sections.task_of(models), sections.columns_of(models)
    headers = ["model", "average", *(short.upper() for short in task.categories)]
    ours = [
        sections.results_cells(sections.metrics_row(name, metrics, HEADLINE), columns)
        for name, metrics in models.items()
    ]
    readings = sections.readings_table(models)
    blocks = [
        f"{metrics_base['dataset']}, {metrics_base['split']} split: percent correct by option logit, "
        f"with 95 % interval over {metrics_base.get('resampled', 'clips')}",
        formatting.aligned([headers, *ours]),
        "Average under each way of reading an answer, and the replies that it could not read",
        formatting.aligned([[str(cell) for cell in row] for row in (map(str.lower, readings.headers), *readings.rows)]),
    ]
    blocks += filter(None, [sections.slight_mass_sentence(models), sections.missing_sentence(models)])
    if reference is not None and len(reference):
        rows = [sections.results_cells(row, columns) for row in reference.to_dict("records")]
        blocks += [
            sections.reference_title(reference, metrics_base["dataset"], task),
            formatting.aligned([headers, *rows]),
        ]
    return "\n\n".join(blocks) + "\n"


def write(
    folder: str | Path,
    base: Mapping[str, Any],
    finetuned: Mapping[str, Any],
    predictions_base: pd.DataFrame,
    predictions_finetuned: pd.DataFrame,
    reference: str,
    base_model_card: Mapping[str, Any] | None,
    *,
    bootstrap_samples: int,
    seed: int,
    made_from: Mapping[str, Mapping[str, Any]] | None = None,
    frames_of: FramesOf | None = None,
) -> None:
    """Write report.md, report.html, their pictures and summary.json into `folder`.

    `base` and `finetuned` are metrics.json, `reference` is "v1", "v2" or "none"; `made_from`: by model, what its
    evaluation was made from; frames_of: a clip id's uint8 [num_frames, size, size, 3] or None. Raises InputError
    where the two evaluations are of different data.
    """
    for name in ("dataset", "split"):
        if base[name] != finetuned[name]:
            raise InputError(
                f"the base was evaluated on {name} {base[name]!r} and the fine-tune on {finetuned[name]!r}: "
                "evaluate both on the same."
            )
    models = {BASE: base, FINETUNED: finetuned}
    task = sections.task_of(models)
    rows = published(reference, task)
    resample = finetuned.get("resampled", CLIPS)
    changes = {
        scorer: compare(predictions_finetuned, predictions_base, scorer, bootstrap_samples, seed, resample, task)
        for scorer in SCORERS
    }
    answered = {BASE: scored(predictions_base, task), FINETUNED: scored(predictions_finetuned, task)}
    summary = _summary(models, answered, changes, reference, base_model_card)
    content = [
        sections.chart_section(models, HEADLINE, rows),
        sections.category_section(models, HEADLINE),
        sections.readings_section(models),
        sections.change_section(
            "What the fine-tune changed", "Fine-tuned minus base", (FINETUNED, BASE), changes, HEADLINE, task.titles
        ),
        *sections.open_sections(models),
        *sections.slices_sections(models),
        *sections.breakdown_sections(models),
        sections.letters_section(answered, task),
        sections.calibration_section(answered, models),
        *([_card_section(base_model_card)] if base_model_card else []),
        _examples_section(answered, frames_of, task),
        sections.missing_section(models),
        *([sections.reference_section(rows, base["dataset"], task)] if rows is not None else []),
        *([sections.made_from_section(made_from)] if made_from else []),
    ]
    folder = Path(folder)
    rendering.write(folder, f"Fine-tuning on {base['dataset']}", sections.introduction(models, answered), content)
    (folder / "summary.json").write_bytes((json.dumps(summary, indent=2, ensure_ascii=False) + "\n").encode())


def _summary(
    models: Models,
    answered: Mapping[str, pd.DataFrame],
    changes: Mapping[str, Mapping[str, Any]],
    reference: str,
    base_model_card: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """summary.json: what the report adds to the two metrics.json, and their overall scores."""
    first, task = next(iter(models.values())), sections.task_of(models)
    summary: dict[str, Any] = {"dataset": first["dataset"], "split": first["split"], "reference": reference}
    for name, metrics in models.items():
        rows = answered[name]
        confidence, correct, clusters = confidences(rows, metrics["resampled"], task)
        summary[name.replace("-", "")] = {
            "model": metrics["model"],
            "ablation": metrics["ablation"],
            "clips": int(rows["clip_id"].nunique()),
            "clips_missing": metrics["clips_missing"],
            "questions_missing": metrics["questions_missing"],
            "scorers": {
                scorer: metrics["scorers"][scorer]["overall"] | {"unparsed": metrics["scorers"][scorer]["unparsed"]}
                for scorer in SCORERS
            },
            "letters": {column: letter_counts(rows, column, task.letters) for column in ("gold", *SCORERS)},
            "calibration_error": expected_calibration_error(confidence, correct, CALIBRATION_BINS),
            "calibration": calibration(confidence, correct, clusters, CALIBRATION_BINS),
        }
    summary["finetuned_minus_base"] = dict(changes[HEADLINE])
    summary["finetuned_minus_base_by_scorer"] = {scorer: dict(change) for scorer, change in changes.items()}
    summary["base_model_card"] = dict(base_model_card) if base_model_card else None
    return summary


def _card_section(card: Mapping[str, Any]) -> Section:
    rows = []
    for key, value in card.items():
        is_fraction = isinstance(value, float) and key.endswith("accuracy")
        rows.append([str(key).replace("_", " "), f"{100 * value:.1f} %" if is_fraction else formatting.plain(value)])
    return Section(
        "The base is not crippled",
        [
            "A base that could not look would gain from any training. These figures were taken from the base "
            "model before fine-tuning, in the forms of question that it was made for."
        ],
        [Table(["Figure", "Value"], rows)],
    )


def _examples_section(answered: Mapping[str, pd.DataFrame], frames_of: FramesOf | None, task: Task) -> Section:
    """One question a category that the fine-tune won, and one that it lost, with what the model saw."""
    tables, paragraphs, pictures = [], [], []
    for title, is_won in (("Won", True), ("Lost", False)):
        chosen = _changed(answered, is_won)
        rows = []
        for ours, theirs in chosen:
            replies = [
                f"{formatting.plain(row[HEADLINE])}: {formatting.plain(row.get('raw'))}" for row in (theirs, ours)
            ]
            asked, category = formatting.plain(ours.get("question")), task.titles.get(ours["category"], "")
            rows.append([category, ours["clip_id"], asked, formatting.plain(ours["gold"]), *replies])
            frames = frames_of(ours["clip_id"]) if frames_of else None
            if frames is not None:
                name = f"frames/{title.lower()}{'-' * bool(category)}{ours['category']}.jpg"
                told = ", ".join(filter(None, (title, category, ours["clip_id"])))
                pictures.append(Picture(name, f"{told}: {asked}", _strip(frames), True))
        headers = [
            f"{title}: category",
            "Clip",
            "Question",
            "Right",
            "Base (logit: words)",
            "Fine-tuned (logit: words)",
        ]
        if rows:
            tables.append(Table(headers, rows, is_prose=True))
        else:
            paragraphs.append(f"{title}: no question.")
    return Section("Questions won and lost", paragraphs, tables, pictures)


def _changed(answered: Mapping[str, pd.DataFrame], is_won: bool) -> list[tuple[pd.Series, pd.Series]]:
    """The first question of each category, by question_id, that only one of the two got right."""
    base, finetuned = (
        rows.assign(is_right=is_correct(rows, HEADLINE)).set_index("question_id") for rows in answered.values()
    )
    shared = base.index.intersection(finetuned.index).sort_values()
    wins, losses = finetuned.loc[shared, "is_right"].to_numpy(), base.loc[shared, "is_right"].to_numpy()
    changed = shared[(wins & ~losses) if is_won else (losses & ~wins)]
    first = finetuned.loc[changed].drop_duplicates("category").index
    return [(finetuned.loc[name], base.loc[name]) for name in first]


def _strip(frames: np.ndarray) -> bytes:
    """Frames side by side as one JPEG; uint8 [num_frames, size, size, 3]."""
    gap = np.full((frames.shape[1], 2, 3), 255, dtype=np.uint8)
    row = np.concatenate([part for frame in frames for part in (frame, gap)][:-1], axis=1)
    image = Image.fromarray(row)
    height = min(image.height, PICTURE_HEIGHT)
    content = io.BytesIO()
    image.resize((round(image.width * height / image.height), height)).save(content, "JPEG", quality=88)
    return content.getvalue()
