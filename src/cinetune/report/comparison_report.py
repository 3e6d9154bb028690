"""The report of a comparison."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cinetune.artifacts import Evaluation
from cinetune.evaluation.comparison import BOTH_WRONG, LOST, WON, disagreements
from cinetune.evaluation.metrics import scored
from cinetune.evaluation.published import published
from cinetune.report import formatting, rendering, sections
from cinetune.report.rendering import Link, Section, Table

MAX_LISTED = 40


def write(
    folder: Path,
    evaluations: Sequence[Evaluation],
    measured: Mapping[str, Any],
    overlooked: Sequence[str],
    reference: str,
    link_of: Callable[[str], str],
) -> None:
    """Write report.md and report.html; link_of: a clip's url in the data to an address that the report can use."""
    scorer, first = measured["scorer"], evaluations[0]
    models = {evaluation.name: evaluation.summary for evaluation in evaluations}
    task = first.task
    answered = {evaluation.name: scored(evaluation.predictions, task) for evaluation in evaluations}
    rows = published(reference, task)
    content = [
        sections.chart_section(models, scorer, rows),
        sections.category_section(models, scorer),
        sections.readings_section(models),
    ]
    for other in evaluations[1:]:
        title, meaning = (
            f"{other.name} against {first.name}",
            f"{other.name} minus {first.name} (intervals over {measured['resampled']})",
        )
        content.append(
            sections.change_section(
                title,
                meaning,
                (other.name, first.name),
                measured["differences_by_scorer"][other.name],
                scorer,
                task.titles,
            )
        )
        content.append(_disagreement_section(other, first, scorer, link_of))
    content += [sections.calibration_section(answered, models), sections.missing_section(models)]
    if rows is not None:
        content.append(sections.reference_section(rows, first.summary["dataset"], task))
    content.append(sections.made_from_section({evaluation.name: evaluation.made_from for evaluation in evaluations}))
    said = sections.introduction(models, answered)
    said += [f"Differences that were overlooked, as asked: {' '.join(overlooked)}"] if overlooked else []
    rendering.write(folder, f"Comparison on {first.summary['dataset']}", said, content)


def _disagreement_section(a: Evaluation, b: Evaluation, scorer: str, link_of: Callable[[str], str]) -> Section:
    rows = disagreements(a, b, scorer)
    tables, counts = [], []
    for verdict in (WON, LOST, BOTH_WRONG):
        chosen = rows[rows["verdict"] == verdict]
        counts.append(f"{verdict} {len(chosen):,}")
        cells = [
            [
                Link(row["clip_id"], link_of(row["url"]))
                if isinstance(row["url"], str) and row["url"]
                else row["clip_id"],
                a.task.titles.get(row["category"], ""),
                formatting.plain(row["question"]),
                row["gold"],
                formatting.plain(row["letter_b"]),
                formatting.plain(row["letter_a"]),
            ]
            for row in chosen.head(MAX_LISTED).to_dict("records")
        ]
        if cells:
            headers = [f"{verdict.capitalize()}: clip", "Category", "Question", "Right", b.name, a.name]
            tables.append(Table(headers, cells, is_prose=True))
    note = (
        f"Questions on which {a.name} and {b.name} differ: {', '.join(counts)}. At most {MAX_LISTED} of each are "
        "listed; the file of disagreements holds them all."
    )
    return Section(f"Where {a.name} and {b.name} disagree", [note], tables)


def headlines(measured: Mapping[str, Any]) -> list[str]:
    """A sentence a difference."""
    said = []
    for name, by_scorer in measured["differences_by_scorer"].items():
        overall = measured["differences"][name]["overall"]
        changes = ", ".join(f"{formatting.change(part['overall'])} by {scorer}" for scorer, part in by_scorer.items())
        said.append(
            f"{name} minus {measured['against']}, in points on {overall['n']} questions: {changes}; by "
            f"{measured['scorer']} p {formatting.p_value(overall['p_value'])} (sign flips of {measured['resampled']}), "
            f"{overall['only_a']} won and {overall['only_b']} lost, {measured['differing_answers'][name]} differing "
            "answers."
        )
    return said
