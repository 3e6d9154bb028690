"""What is said of evaluations: sections from saved predictions and metrics, beside published results.

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

from cinetune import charts, page
from cinetune.answers import LETTERS
from cinetune.errors import InputError
from cinetune.metrics import (
    CALIBRATION_BINS,
    CATEGORY_TITLES,
    SCORERS,
    calibration,
    compare,
    confidences,
    confusion,
    expected_calibration_error,
    is_correct,
    letter_counts,
    scored,
)
from cinetune.page import NOTHING, Picture, Section, Table
from cinetune.published import published, version_of

BASE, FINETUNED = "base", "fine-tuned"
HEADLINE = "logit"  # the one scorer that no wording can move, so the one that two models are compared by
COLUMNS = charts.COLUMNS
MOST_MISSING_LISTED = 50
PICTURE_HEIGHT = 112  # pixels at most
SCORER_NOTES = {
    "strict": "the published parser: a letter in the asked form, or the answer's own text",
    "lenient": "whatever a fair reader would take for one option",
    "logit": "the option whose letter the model holds most probable; no text is read",
}

# By the name under which a model is shown.
Models = Mapping[str, Mapping[str, Any]]
FramesOf = Callable[[str], np.ndarray | None]


def metrics_row(name: str, metrics: Mapping[str, Any], scorer: str) -> dict[str, Any]:
    """A row for `markdown_table`: the scores of one scorer under the published tables' column keys."""
    scores = metrics["scorers"][scorer]
    return {"model": name, "average": scores["overall"], **scores["categories"]}


def markdown_table(rows: Sequence[Mapping[str, Any]], scores_in: Sequence[str] = COLUMNS) -> str:
    """Model, Average and the five categories, in percent with one decimal.

    A row maps "model" and the column keys to percent (a number, as published) or to a score of metrics.json
    (fractions, shown with their interval). A missing cell is a dash.
    """
    return page.markdown(_results_table(rows, scores_in))


def console_table(
    metrics_base: Mapping[str, Any], metrics_finetuned: Mapping[str, Any], reference: pd.DataFrame | None
) -> str:
    """The result as aligned plain text; published rows follow under a heading of their own."""
    models = {BASE: metrics_base, FINETUNED: metrics_finetuned}
    headers = ["model", "average", *(short.upper() for short in CATEGORY_TITLES)]
    ours = [_results_cells(metrics_row(name, metrics, HEADLINE), COLUMNS) for name, metrics in models.items()]
    readings = _readings_table(models)
    blocks = [
        f"{metrics_base['dataset']}, {metrics_base['split']} split: percent correct by option logit, "
        "with 95 % interval over clips",
        page.aligned([headers, *ours]),
        "Average under each way of reading an answer, and the replies that it could not read",
        page.aligned([[header.lower() for header in readings.headers], *readings.rows]),
    ]
    missing = missing_sentence(models)
    if missing:
        blocks.append(missing)
    if reference is not None and len(reference):
        rows = [_results_cells(row, COLUMNS) for row in reference.to_dict("records")]
        blocks += [reference_title(reference, metrics_base["dataset"]), page.aligned([headers, *rows])]
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
    rows = published(reference) if reference != "none" else None
    comparison = compare(predictions_finetuned, predictions_base, HEADLINE, bootstrap_samples, seed)
    models = {BASE: base, FINETUNED: finetuned}
    answered = {BASE: scored(predictions_base), FINETUNED: scored(predictions_finetuned)}
    summary = _summary(models, answered, comparison, reference, base_model_card)
    sections = [
        chart_section(models, HEADLINE, rows),
        category_section(models, HEADLINE),
        readings_section(models),
        change_section("What the fine-tune changed", "Fine-tuned less base", (FINETUNED, BASE), comparison),
        _slices_section(models),
        *_breakdown_sections(models),
        _letters_section(answered),
        calibration_section(answered),
        *([_card_section(base_model_card)] if base_model_card else []),
        _examples_section(answered, frames_of),
        missing_section(models),
        *([reference_section(rows, base["dataset"])] if rows is not None else []),
        *([made_from_section(made_from)] if made_from else []),
    ]
    folder = Path(folder)
    page.write(folder, f"Fine-tuning on {base['dataset']}", introduction(models, answered), sections)
    (folder / "summary.json").write_bytes((json.dumps(summary, indent=2, ensure_ascii=False) + "\n").encode())


def _summary(
    models: Models,
    answered: Mapping[str, pd.DataFrame],
    comparison: Mapping[str, Any],
    reference: str,
    base_model_card: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """summary.json: what the report adds to the two metrics.json, and their overall figures."""
    first = next(iter(models.values()))
    summary: dict[str, Any] = {"dataset": first["dataset"], "split": first["split"], "reference": reference}
    for name, metrics in models.items():
        rows = answered[name]
        confidence, correct = confidences(rows)
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
            "letters": {column: letter_counts(rows, column, LETTERS) for column in ("gold", *SCORERS)},
            "calibration_error": expected_calibration_error(confidence, correct, CALIBRATION_BINS),
            "calibration": calibration(confidence, correct, CALIBRATION_BINS),
        }
    summary["finetuned_minus_base"] = dict(comparison)
    summary["base_model_card"] = dict(base_model_card) if base_model_card else None
    return summary


# ---- sections, for any number of models


def introduction(models: Models, answered: Mapping[str, pd.DataFrame]) -> list[str]:
    last_name, last = list(models.items())[-1]
    rows = answered[last_name]
    sentences = [
        f"{len(rows):,} questions about {rows['clip_id'].nunique():,} clips of the {last['split']} split of "
        f"{last['dataset']}.",
        *(f"{name[:1].upper()}{name[1:]}: {metrics['model']}." for name, metrics in models.items()),
    ]
    for name, metrics in models.items():
        if metrics["ablation"]:
            sentences.append(f"The {name} model was evaluated with the ablation {metrics['ablation']}.")
    resampled = last.get("resampled", "clips")
    return [
        " ".join([*sentences, missing_sentence(models) or "No clip is missing."]),
        f"Figures are percent correct. In brackets stands the 95 % interval from resampling {resampled}, because "
        f"questions about one {resampled.removesuffix('s')} are not independent.",
    ]


def chart_section(models: Models, scorer: str, reference: pd.DataFrame | None) -> Section:
    last = list(models.values())[-1]
    title = (
        f"This project on {last['dataset']} ({last['split']} split), "
        f"{'option logit' if scorer == 'logit' else scorer}, 95 % intervals over {last.get('resampled', 'clips')}"
    )
    rows = {name: metrics_row(name, metrics, scorer) for name, metrics in models.items()}
    beside = reference_title(reference, last["dataset"]) if reference is not None else ""
    chart = charts.results(rows, title, reference, beside)
    return Section("", pictures=[Picture("chart.png", f"Percent correct: {', '.join(models)}", chart)])


def category_section(models: Models, scorer: str) -> Section:
    table = _results_table([metrics_row(name, metrics, scorer) for name, metrics in models.items()], COLUMNS)
    scores = metrics_row("", list(models.values())[-1], scorer)
    counts = ["questions", *(f"{scores[column]['n']:,}" for column in COLUMNS)]
    return Section(
        "By category",
        [f"Scored by {scorer}: {SCORER_NOTES[scorer]}."],
        [Table(table.headers, [*table.rows, counts])],
    )


def readings_section(models: Models) -> Section:
    notes = "; ".join(f"{scorer}: {note}" for scorer, note in SCORER_NOTES.items())
    abstained = [
        f"{name} {page.share(scores['abstained'], scores['overall']['n'])}"
        for name, metrics in models.items()
        if "abstained" in (scores := metrics["scorers"]["lenient"])
    ]
    said = f" Of the unparsed, replies that decline to choose: {'; '.join(abstained)}." if abstained else ""
    return Section(
        "Three ways to read an answer",
        [f"The same replies under three scorers. {notes}. A reply that cannot be read counts as wrong.{said}"],
        [_readings_table(models)],
    )


def _readings_table(models: Models) -> Table:
    rows = []
    for name, metrics in models.items():
        scorers = metrics["scorers"]
        scores = [page.score_text(scorers[scorer]["overall"]) for scorer in SCORERS]
        unread = [page.share(scorers[scorer]["unparsed"], scorers[scorer]["overall"]["n"]) for scorer in SCORERS]
        rows.append([name, *scores, *unread])
    headers = ["Model", *(scorer.capitalize() for scorer in SCORERS), *(f"Unparsed {scorer}" for scorer in SCORERS)]
    return Table(headers, rows)


def change_section(title: str, meaning: str, names: tuple[str, str], comparison: Mapping[str, Any]) -> Section:
    """`names`: of the model and of the one that it is held against; `meaning`: which less which."""
    parts = {"Average": comparison["overall"]} | {
        title: comparison["categories"][short] for short, title in CATEGORY_TITLES.items()
    }
    rows = [
        [
            part_title,
            f"{part['n']:,}",
            page.points(part["difference"], part["ci95"]),
            str(part["only_a"]),
            str(part["only_b"]),
            page.p_value(part["p_value"]),
        ]
        for part_title, part in parts.items()
    ]
    paragraphs = [
        f"{meaning}, in percentage points, on the questions that both answered. p is McNemar's "
        "exact test, which takes questions as independent: where it and the interval disagree, trust the "
        "interval."
    ]
    if comparison["questions_unpaired"]:
        paragraphs.append(f"Left out here, as only one model answered: {comparison['questions_unpaired']:,}.")
    headers = ["Category", "Questions", "Difference", *(f"Only {name} right" for name in names), "p"]
    return Section(title, paragraphs, [Table(headers, rows)])


def _slices_section(models: Models) -> Section:
    labels = {
        "hard_split": {"True": "Hard split", "False": "Not in the hard split"},
        "visual_reliance": {
            "1": "Needs the picture",
            "0": "Does not need the picture",
            "unknown": "Visual reliance unknown",
        },
    }
    tables = []
    for key, titles in labels.items():
        parts = {name: metrics["scorers"][HEADLINE][key] for name, metrics in models.items()}
        present = {value: title for value, title in titles.items() if any(value in part for part in parts.values())}
        rows = [[name, *(page.score_text(part.get(value)) for value in present)] for name, part in parts.items()]
        last = list(parts.values())[-1]
        rows.append(["questions", *(f"{last[value]['n']:,}" if value in last else "0" for value in present)])
        tables.append(Table(["Model", *present.values()], rows))
    return Section("Hard questions, and questions that need the picture", [f"Scored by {HEADLINE}."], tables)


def _breakdown_sections(models: Models) -> list[Section]:
    """Genre and decade, one row each, where the data has them."""
    tables = []
    for key in ("genre", "decade"):
        parts = {name: metrics["scorers"][HEADLINE].get(key, {}) for name, metrics in models.items()}
        last = list(parts.values())[-1]
        rows = [
            [value, f"{score['n']:,}", *(page.score_text(part.get(value)) for part in parts.values())]
            for value, score in last.items()
        ]
        if rows:
            tables.append(Table([key.capitalize(), "Questions", *parts], rows))
    note = f"Scored by {HEADLINE}. A film of several genres counts in each."
    return [Section("By genre and decade", [note], tables)] if tables else []


def _letters_section(answered: Mapping[str, pd.DataFrame]) -> Section:
    columns = {"Right answer": letter_counts(list(answered.values())[-1], "gold", LETTERS)}
    for name, rows in answered.items():
        for scorer in SCORERS:
            columns[f"{name.capitalize()}, {scorer}"] = letter_counts(rows, scorer, LETTERS)
    counts = [[letter, *(f"{column[letter]:,}" for column in columns.values())] for letter in [*LETTERS, "none"]]
    tables = [Table(["Letter", *columns], counts)]
    for name, rows in answered.items():
        table = confusion(rows, HEADLINE)
        cells = [[gold, *(f"{row[letter]:,}" for letter in [*LETTERS, "none"])] for gold, row in table.items()]
        tables.append(Table([f"{name.capitalize()}: right letter", *(f"chose {x}" for x in LETTERS), "none"], cells))
    return Section(
        "Which letters are chosen",
        [
            "A model that prefers a letter, whatever is asked, shows here. Below, for each right letter, what each "
            f"model chose by {HEADLINE}."
        ],
        tables,
    )


def calibration_section(answered: Mapping[str, pd.DataFrame]) -> Section:
    paragraphs = [
        "Confidence is the probability of the likeliest option. A calibrated model is right as often as it is "
        "confident."
    ]
    tables, bins = [], {}
    for name, rows in answered.items():
        confidence, correct = confidences(rows)
        bins[name] = calibration(confidence, correct, CALIBRATION_BINS)
        error = expected_calibration_error(confidence, correct, CALIBRATION_BINS)
        shown = NOTHING if error is None else f"{100 * error:.1f} points"
        paragraphs.append(f"{name.capitalize()}: expected calibration error {shown}.")
        cells = [
            [
                f"{100 * row['low']:.0f}–{100 * row['high']:.0f}",
                f"{row['n']:,}",
                page.percent(row["confidence"]),
                page.percent(row["accuracy"]),
            ]
            for row in bins[name]
        ]
        tables.append(
            Table([f"{name.capitalize()}: confidence", "Questions", "Mean confidence", "Percent correct"], cells)
        )
    plot = Picture("calibration.png", "Percent correct over confidence", charts.reliability(bins))
    return Section("Does it know when it is right?", paragraphs, tables, [plot])


def missing_section(models: Models) -> Section:
    """What was not asked, and between which bounds the accuracy over all questions lies."""
    headers = ["Model", "Asked", "Missing", "Missing all wrong", "Missing as published", "Missing all right"]
    rows = []
    for name, metrics in models.items():
        scores = metrics["scorers"][HEADLINE]
        limits = scores.get("bounds", {})
        keys = ("missing_wrong", "missing_as_published", "missing_right")
        ends = [page.percent(limits.get(key)) for key in keys]
        rows.append([name, page.score_text(scores["overall"]), f"{metrics['questions_missing']:,}", *ends])
    tables = [Table(headers, rows)]
    by_clip = {row["clip_id"]: row for metrics in models.values() for row in metrics.get("missing", [])}
    listed = [by_clip[clip_id] for clip_id in sorted(by_clip)]
    paragraphs = ["Accuracy on what was asked, and over all questions under three guesses about the missing ones."]
    if listed:
        shown = listed[:MOST_MISSING_LISTED]
        if len(shown) < len(listed):
            paragraphs.append(f"The first {len(shown)} of {len(listed):,} missing clips; metrics.json lists them all.")
        cells = [[row["clip_id"], str(row["questions"]), page.plain(row["reason"])] for row in shown]
        tables.append(Table(["Missing clip", "Questions", "Why"], cells, is_prose=True))
    return Section("What is missing", paragraphs, tables)


def _card_section(card: Mapping[str, Any]) -> Section:
    rows = []
    for key, value in card.items():
        is_fraction = isinstance(value, float) and key.endswith("accuracy")
        rows.append([str(key).replace("_", " "), f"{100 * value:.1f} %" if is_fraction else page.plain(value)])
    return Section(
        "The base is not crippled",
        [
            "A base that could not look would gain from any training. These figures were taken from the base "
            "model before fine-tuning, in the forms of question that it was made for."
        ],
        [Table(["Figure", "Value"], rows)],
    )


def _examples_section(answered: Mapping[str, pd.DataFrame], frames_of: FramesOf | None) -> Section:
    """One question a category that the fine-tune won, and one that it lost, with what the model saw."""
    tables, paragraphs, pictures = [], [], []
    for title, is_won in (("Won", True), ("Lost", False)):
        chosen = _changed(answered, is_won)
        rows = []
        for ours, theirs in chosen:
            replies = [f"{page.plain(row[HEADLINE])}: {page.plain(row.get('raw'))}" for row in (theirs, ours)]
            asked, category = page.plain(ours.get("question")), CATEGORY_TITLES[ours["category"]]
            rows.append([category, ours["clip_id"], asked, page.plain(ours["gold"]), *replies])
            frames = frames_of(ours["clip_id"]) if frames_of else None
            if frames is not None:
                name = f"frames/{title.lower()}-{ours['category']}.jpg"
                pictures.append(Picture(name, f"{title}, {category}, {ours['clip_id']}: {asked}", _strip(frames), True))
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


def made_from_section(made_from: Mapping[str, Mapping[str, Any]]) -> Section:
    """Settings and hashes of each model's evaluation."""
    columns = {name: _flat(content) for name, content in made_from.items()}
    keys = dict.fromkeys(key for column in columns.values() for key in column)
    rows = [[key, *(page.plain(column.get(key)) for column in columns.values())] for key in keys]
    note = "Settings, and hashes of data, frames, prompt and model."
    return Section("Made from", [note], [Table(["What", *columns], rows, is_prose=True)])


def _flat(content: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= _flat(value, f"{above}{key}.") if isinstance(value, Mapping) else {f"{above}{key}": value}
    return flat


def reference_section(reference: pd.DataFrame, dataset: str) -> Section:
    sources = ", ".join(sorted(reference["source"].unique()))
    return Section(
        reference_title(reference, dataset),
        [f"Copied, not measured here. Source: {sources}."],
        [_results_table(reference.to_dict("records"), COLUMNS)],
    )


def reference_title(reference: pd.DataFrame, dataset: str) -> str:
    version = reference["dataset"].iloc[0]
    if version_of(dataset) == version:
        return f"CinePile {version}, published; other prompt and parser: compare with care"
    return f"CinePile {version}, published; another dataset, other protocol: not comparable"


def missing_sentence(models: Models) -> str:
    parts = [
        f"{page.counted(metrics['clips_missing'], 'clip')} with "
        f"{page.counted(metrics['questions_missing'], 'question')} for the {name} model"
        for name, metrics in models.items()
        if metrics["questions_missing"]
    ]
    return f"Missing, and left out of every figure: {'; '.join(parts)}." if parts else ""


def _results_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> Table:
    titles = {"average": "Average"} | CATEGORY_TITLES
    return Table(["Model", *(titles[name] for name in columns)], [_results_cells(row, columns) for row in rows])


def _results_cells(row: Mapping[str, Any], columns: Sequence[str]) -> list[str]:
    return [str(row["model"]), *(page.score_text(row.get(name)) for name in columns)]
