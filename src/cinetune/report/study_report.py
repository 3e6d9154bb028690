"""The report of a study."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cinetune.evaluation.metrics import SCORERS
from cinetune.report import charts, formatting, rendering
from cinetune.report.rendering import Picture, Section, Table
from cinetune.task import description


def write(folder: Path, measured: Mapping[str, Any], dataset: str) -> None:
    """Write report.md and report.html."""
    groups = description.saved(measured.get("task")).groups
    cells = [
        [str(row["seed"]), str(row["films"]), *(formatting.score_text(row["scores"][scorer]) for scorer in SCORERS)]
        for row in measured["trainings"]
    ]
    trainings = Table(["Seed", f"Training {groups}", *SCORERS], cells)
    said = (
        "Percent correct by each scorer. The intervals are over clips, for one training each: they do not hold the "
        "spread over seeds."
    )
    sections = [Section("Seeds", [], [_spread(measured["seeds_by_scorer"])]), Section("Trainings", [said], [trainings])]
    if len(measured["curve"]) > 1:
        drawn = charts.learning_curve(measured["curve"], groups, measured.get("chance"))
        curve = Picture("curve.png", f"Percent correct over training {groups}", drawn)
        text = f"One training each, with the first seed; scorer: {measured['scorer']}."
        sections.append(Section("Learning curve", [text], pictures=[curve]))
    rendering.write(folder, f"Seeds and {groups} on {dataset}", [], sections)


def _spread(seeds: Mapping[str, Mapping[str, Any]]) -> Table:
    """Over the seeds that trained on all films, in percent and points."""
    rows = []
    for scorer, found in seeds.items():
        deviation = formatting.percent(found["standard_deviation"])
        if found["standard_deviation"] is not None:
            low, high = (formatting.percent(found[f"standard_deviation_{end}"]) for end in ("low", "high"))
            deviation += f" ({low}–{high})"
        values = (formatting.percent(found[name]) for name in ("mean", "least", "most"))
        rows.append([scorer, str(found["n"]), *values, deviation])
    return Table(["Scorer", "Seeds", "Mean", "Least", "Most", "Standard deviation (95 % interval)"], rows)
