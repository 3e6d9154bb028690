"""What is said of any number of models: each section from their metrics.json or their predictions.

A model is known by the name under which it is shown; the last one is the one that matters most.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from cinetune.evaluation import open_answers
from cinetune.evaluation.metrics import (
    CALIBRATION_BINS,
    SCORERS,
    SLIGHT_MASS,
    confidences,
    confusion,
    letter_counts,
)
from cinetune.evaluation.published import version_of
from cinetune.evaluation.statistics import FEW_CLUSTERS, calibration
from cinetune.report import charts, formatting
from cinetune.report.formatting import NOTHING
from cinetune.report.rendering import Picture, Section, Table
from cinetune.task import description
from cinetune.task.description import Task

HEADLINE = "logit"  # the one scorer that no wording can move, so the one that two models are compared by
MAX_MISSING_LISTED = 50
SCORER_NOTES = {
    "strict": "the published parser: a letter in the asked form, or the answer's own text",
    "lenient": "whatever a fair reader would take for one option",
    "logit": "the option whose letter the model holds most probable; no text is read",
}

# metrics.json by the name under which a model is shown.
Models = Mapping[str, Mapping[str, Any]]


def task_of(models: Models) -> Task:
    """What all these models were asked; metrics.json of earlier versions do not say it."""
    return description.saved(list(models.values())[-1].get("task"))


def columns_of(models: Models) -> tuple[str, ...]:
    """The keys of a row of results: the average, then the categories."""
    return (charts.AVERAGE, *task_of(models).categories)


def chance_of(models: Models) -> float | None:
    """The share of questions that a guess gets right."""
    task = task_of(models)
    known = 1 / task.max_choices if task.is_fixed else None
    found: float | None = list(models.values())[-1].get("chance", known)
    return found


def metrics_row(name: str, metrics: Mapping[str, Any], scorer: str) -> dict[str, Any]:
    """A row for `markdown_table`: the scores of one scorer under the published tables' column keys."""
    scores = metrics["scorers"][scorer]
    row = {"average": scores["overall"], **scores["categories"]}
    if scorer == "logit" and _has_slight_mass(metrics):
        row = {part: score | {"slight_mass": True} for part, score in row.items()}
    return {"model": name, **row}


def _has_slight_mass(metrics: Mapping[str, Any]) -> bool:
    mass = metrics.get("letter_mass")
    return mass is not None and mass["median"] < SLIGHT_MASS


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
        " ".join([*sentences, missing_sentence(models) or "No clip is missing.", slight_mass_sentence(models)]).strip(),
        f"Figures are percent correct. In brackets stands the 95 % interval over {resampled}, because "
        f"questions about one {resampled.removesuffix('s')} are not independent. {few_sentence(resampled)}",
    ]


def slight_mass_sentence(models: Models) -> str:
    """Which scores by logit rest on letters that the model would hardly say; empty if none does."""
    slight = [
        f"{name} {formatting.probability(metrics['letter_mass']['median'])}"
        for name, metrics in models.items()
        if _has_slight_mass(metrics)
    ]
    if not slight:
        return ""
    return (
        f"{formatting.SLIGHT} The option letters together have a median probability under {100 * SLIGHT_MASS:.0f} % "
        f"of being the next token ({'; '.join(slight)}): the choice among them says little about what the model would "
        "answer."
    )


def few_sentence(resampled: str) -> str:
    return (
        f"{formatting.FEW} means few {resampled}: an interval over fewer than {FEW_CLUSTERS} is wide and approximate."
    )


def chart_section(models: Models, scorer: str, reference: pd.DataFrame | None) -> Section:
    last = list(models.values())[-1]
    title = (
        f"This project on {last['dataset']} ({last['split']} split), "
        f"{'option logit' if scorer == 'logit' else scorer}, 95 % intervals over {last.get('resampled', 'clips')}"
    )
    rows = rows_of(models, scorer)
    beside = reference_title(reference, last["dataset"], task_of(models)) if reference is not None else ""
    chart = charts.results(rows, task_of(models).titles, chance_of(models), title, reference, beside)
    return Section("", pictures=[Picture("chart.png", f"Percent correct: {', '.join(models)}", chart)])


def rows_of(models: Models, scorer: str) -> dict[str, dict[str, Any]]:
    """A row a model; and one by lenient where it would hardly say the letters that it is scored by."""
    rows = {}
    for name, metrics in models.items():
        rows[name] = metrics_row(name, metrics, scorer)
        if scorer == "logit" and _has_slight_mass(metrics):
            in_words = f"{name}, by lenient"
            rows[in_words] = metrics_row(in_words, metrics, "lenient")
    return rows


def category_section(models: Models, scorer: str) -> Section:
    table = results_table(list(rows_of(models, scorer).values()), task_of(models))
    scores = metrics_row("", list(models.values())[-1], scorer)
    counts = ["questions", *(f"{scores[column]['n']:,}" for column in columns_of(models))]
    return Section(
        "By category" if task_of(models).categories else "Results",
        [f"Scored by {scorer}, unless a row says otherwise: {SCORER_NOTES[scorer]}."],
        [Table(table.headers, [*table.rows, counts])],
    )


def readings_section(models: Models) -> Section:
    notes = "; ".join(f"{scorer}: {note}" for scorer, note in SCORER_NOTES.items())
    abstained = [
        f"{name} {formatting.share(scores['abstained'], scores['overall']['n'])}"
        for name, metrics in models.items()
        if "abstained" in (scores := metrics["scorers"]["lenient"])
    ]
    said = f" Of the unparsed, replies that decline to choose: {'; '.join(abstained)}." if abstained else ""
    return Section(
        "Three ways to read an answer",
        [f"The same replies under three scorers. {notes}. A reply that cannot be read counts as wrong.{said}"],
        [readings_table(models)],
    )


def readings_table(models: Models) -> Table:
    rows = []
    for name, metrics in models.items():
        scorers = metrics["scorers"]
        mass = metrics.get("letter_mass")
        scores = [formatting.score_text(metrics_row(name, metrics, scorer)["average"]) for scorer in SCORERS]
        unread = [formatting.share(scorers[scorer]["unparsed"], scorers[scorer]["overall"]["n"]) for scorer in SCORERS]
        rows.append([name, *scores, *unread, formatting.probability(mass["median"]) if mass else formatting.NOTHING])
    unparsed = [f"Unparsed {scorer}" for scorer in SCORERS]
    headers = ["Model", *(scorer.capitalize() for scorer in SCORERS), *unparsed, "Probability of letters"]
    return Table(headers, rows)


def open_sections(models: Models) -> list[Section]:
    """Open questions, where some were asked; they are part of no other figure."""
    found = {name: metrics["open"] for name, metrics in models.items() if metrics.get("open", {}).get("n")}
    rows = [
        [name, f"{one['n']:,}", formatting.score_text(one["exact"]), formatting.percent(one["token_match"])]
        for name, one in found.items()
    ]
    note = f"Answers in words, compared with the data's: {open_answers.NOTE}. They are part of no other figure."
    headers = ["Model", "Questions", "Exact", "Token match"]
    return [Section("Open questions", [note], [Table(headers, rows)])] if rows else []


def change_section(
    title: str,
    meaning: str,
    names: tuple[str, str],
    comparisons: Mapping[str, Mapping[str, Any]],
    scorer: str,
    titles: Mapping[str, str],
) -> Section:
    """`names`: of the model and of its baseline; `meaning`: which minus which; comparisons: `compare` by scorer.

    titles: of the categories, by short name.
    """
    of_scorer = comparisons[scorer]
    parts = {"Average": of_scorer["overall"]} | {
        part_title: of_scorer["categories"][short] for short, part_title in titles.items()
    }
    keys = [None, *titles]
    changes = [
        [
            part_title,
            f"{part['n']:,}",
            *(
                formatting.change(comparison["categories"][key] if key else comparison["overall"])
                for comparison in comparisons.values()
            ),
        ]
        for key, (part_title, part) in zip(keys, parts.items(), strict=True)
    ]
    tests = [
        [
            part_title,
            str(part["only_a"]),
            str(part["only_b"]),
            formatting.p_value(part.get("p_value_holm", part["p_value"])),
            formatting.p_value(part["mcnemar_p_value"]),
        ]
        for part_title, part in parts.items()
    ]
    paragraphs = [
        f"{meaning}, in percentage points, on the questions that both answered, under each scorer. Below, by {scorer}: "
        "p is that of a sign-flip test over what the intervals are over, for categories adjusted by Holm for their "
        "number; McNemar's exact test takes questions as independent and finds more than there is where they are not."
    ]
    if of_scorer["questions_unpaired"]:
        paragraphs.append(f"Left out here, as only one model answered: {of_scorer['questions_unpaired']:,}.")
    headers = ["Category", "Questions", *(name.capitalize() for name in comparisons)]
    test_headers = [f"By {scorer}", *(f"Only {name} right" for name in names), "p", "p if independent (McNemar)"]
    return Section(title, paragraphs, [Table(headers, changes), Table(test_headers, tests)])


def slices_sections(models: Models) -> list[Section]:
    """Hard questions and those that need the picture, where the data tells them."""
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
        parts = {name: metrics["scorers"][HEADLINE].get(key, {}) for name, metrics in models.items()}
        if not any(parts.values()):
            continue
        present = {value: title for value, title in titles.items() if any(value in part for part in parts.values())}
        rows = [[name, *(formatting.score_text(part.get(value)) for value in present)] for name, part in parts.items()]
        last = list(parts.values())[-1]
        rows.append(["questions", *(f"{last[value]['n']:,}" if value in last else "0" for value in present)])
        tables.append(Table(["Model", *present.values()], rows))
    title = "Hard questions, and questions that need the picture"
    return [Section(title, [f"Scored by {HEADLINE}."], tables)] if tables else []


def breakdown_sections(models: Models) -> list[Section]:
    """Genre and decade, one row each, where the data has them."""
    tables = []
    for key in ("genre", "decade"):
        parts = {name: metrics["scorers"][HEADLINE].get(key, {}) for name, metrics in models.items()}
        last = list(parts.values())[-1]
        rows = [
            [value, f"{score['n']:,}", *(formatting.score_text(part.get(value)) for part in parts.values())]
            for value, score in last.items()
        ]
        if rows:
            tables.append(Table([key.capitalize(), "Questions", *parts], rows))
    looked_at = sum(len(table.rows) for table in tables)
    note = (
        f"Scored by {HEADLINE}. A {task_of(models).group} of several genres counts in each. Of {looked_at} rows looked "
        "at, about one in twenty misses its true value by chance alone."
    )
    return [Section("By genre and decade", [note], tables)] if tables else []


def letters_section(answered: Mapping[str, pd.DataFrame], task: Task) -> Section:
    letters = task.letters
    columns = {"Right answer": letter_counts(list(answered.values())[-1], "gold", letters)}
    for name, rows in answered.items():
        for scorer in SCORERS:
            columns[f"{name.capitalize()}, {scorer}"] = letter_counts(rows, scorer, letters)
    counts = [[letter, *(f"{column[letter]:,}" for column in columns.values())] for letter in [*letters, "none"]]
    tables = [Table(["Letter", *columns], counts)]
    for name, rows in answered.items():
        table = confusion(rows, HEADLINE, task)
        cells = [[gold, *(f"{row[letter]:,}" for letter in [*letters, "none"])] for gold, row in table.items()]
        tables.append(Table([f"{name.capitalize()}: right letter", *(f"chose {x}" for x in letters), "none"], cells))
    return Section(
        "Which letters are chosen",
        [
            "A model that prefers a letter, whatever is asked, shows here. Below, for each right letter, what each "
            f"model chose by {HEADLINE}."
        ],
        tables,
    )


def calibration_section(answered: Mapping[str, pd.DataFrame], models: Models) -> Section:
    paragraphs = [
        "Confidence is the probability of the likeliest option. A calibrated model is right as often as it is "
        "confident; chance alone lifts its expected calibration error above 0."
    ]
    tables, bins = [], {}
    for name, rows in answered.items():
        bins[name] = calibration(*confidences(rows, models[name]["resampled"], task_of(models)), CALIBRATION_BINS)
        said = _calibration_error(models[name].get("calibration", {}))
        paragraphs.append(f"{name.capitalize()}: expected calibration error {said}.")
        cells = [
            [
                f"{100 * row['low']:.0f}–{100 * row['high']:.0f}",
                f"{row['n']:,}",
                formatting.percent(row["confidence"]),
                formatting.score_text(row),
            ]
            for row in bins[name]
        ]
        tables.append(
            Table([f"{name.capitalize()}: confidence", "Questions", "Mean confidence", "Percent correct"], cells)
        )
    plot = Picture("calibration.png", "Percent correct over confidence", charts.reliability(bins))
    return Section("Does it know when it is right?", paragraphs, tables, [plot])


def _calibration_error(measured: Mapping[str, Any]) -> str:
    error, interval, chance = (measured.get(key) for key in ("error", "ci95", "error_if_calibrated"))
    if error is None:
        return NOTHING
    text = f"{100 * error:.1f} points"
    if interval and chance:
        text += (
            f" ({100 * interval[0]:.1f} to {100 * interval[1]:.1f}); a perfectly calibrated model would show "
            f"{100 * chance['mean']:.1f} at this number of questions, and up to {100 * chance['percentile_95']:.1f} in "
            "19 of 20 samples"
        )
    return text


def missing_section(models: Models) -> Section:
    """What was not asked, and between which bounds the accuracy over all questions lies."""
    headers = ["Model", "Asked", "Missing", "Missing all wrong", "Missing as published", "Missing all right"]
    rows = []
    for name, metrics in models.items():
        scores = metrics["scorers"][HEADLINE]
        limits = scores.get("bounds", {})
        keys = ("missing_wrong", "missing_as_published", "missing_right")
        ends = [formatting.percent(limits.get(key)) for key in keys]
        rows.append([name, formatting.score_text(scores["overall"]), f"{metrics['questions_missing']:,}", *ends])
    tables = [Table(headers, rows)]
    by_clip = {row["clip_id"]: row for metrics in models.values() for row in metrics.get("missing", [])}
    listed = [by_clip[clip_id] for clip_id in sorted(by_clip)]
    paragraphs = ["Accuracy on what was asked, and over all questions under three guesses about the missing ones."]
    if listed:
        shown = listed[:MAX_MISSING_LISTED]
        if len(shown) < len(listed):
            paragraphs.append(f"The first {len(shown)} of {len(listed):,} missing clips; metrics.json lists them all.")
        cells = [[row["clip_id"], str(row["questions"]), formatting.plain(row["reason"])] for row in shown]
        tables.append(Table(["Missing clip", "Questions", "Why"], cells, is_prose=True))
    return Section("What is missing", paragraphs, tables)


def made_from_section(made_from: Mapping[str, Mapping[str, Any]]) -> Section:
    """Settings and hashes of each model's evaluation."""
    columns = {name: _flat(content) for name, content in made_from.items()}
    keys = dict.fromkeys(key for column in columns.values() for key in column)
    rows = [[key, *(formatting.plain(column.get(key)) for column in columns.values())] for key in keys]
    note = "Settings, and hashes of data, frames, prompt and model."
    return Section("Made from", [note], [Table(["What", *columns], rows, is_prose=True)])


def _flat(content: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= _flat(value, f"{above}{key}.") if isinstance(value, Mapping) else {f"{above}{key}": value}
    return flat


def reference_section(reference: pd.DataFrame, dataset: str, task: Task) -> Section:
    sources = ", ".join(sorted(reference["source"].unique()))
    return Section(
        reference_title(reference, dataset, task),
        [f"Copied, not measured here. Source: {sources}."],
        [results_table(reference.to_dict("records"), task)],
    )


def reference_title(reference: pd.DataFrame, dataset: str, task: Task) -> str:
    version = reference["dataset"].iloc[0]
    if version_of(dataset, task) == version:
        return f"{task.name} {version}, published; other prompt and parser: compare with care"
    return f"{task.name} {version}, published; another dataset, other protocol: not comparable"


def missing_sentence(models: Models) -> str:
    parts = [
        f"{formatting.counted(metrics['clips_missing'], 'clip')} with "
        f"{formatting.counted(metrics['questions_missing'], 'question')} for the {name} model"
        for name, metrics in models.items()
        if metrics["questions_missing"]
    ]
    return f"Missing, and left out of every figure: {'; '.join(parts)}." if parts else ""


def results_table(rows: Sequence[Mapping[str, Any]], task: Task) -> Table:
    columns = (charts.AVERAGE, *task.categories)
    return Table(["Model", "Average", *task.titles.values()], [results_cells(row, columns) for row in rows])


def results_cells(row: Mapping[str, Any], columns: Sequence[str]) -> list[str]:
    return [str(row["model"]), *(formatting.score_text(row.get(name)) for name in columns)]
