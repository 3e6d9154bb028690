"""The report of a study."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cinetune.report import charts, formatting, rendering
from cinetune.report.rendering import Picture, Section, Table


def write(folder: Path, measured: Mapping[str, Any], dataset: str) -> None:
    """Write report.md and report.html."""
    cells = [
        [str(row["seed"]), str(row["films"]), formatting.score_text(row["score"])] for row in measured["trainings"]
    ]
    spread = measured["seeds"]
    deviation, between = spread["standard_deviation"], ""
    if deviation is not None:
        between = " (95 % interval {} to {})".format(
            *(formatting.percent(spread[f"standard_deviation_{end}"]) for end in ("low", "high"))
        )
    said = (
        f"Over {formatting.counted(spread['n'], 'training seed')} on all films: mean "
        f"{formatting.percent(spread['mean'])}, standard deviation {formatting.percent(deviation)} points{between}, "
        f"from {formatting.percent(spread['least'])} to {formatting.percent(spread['most'])} percent. The intervals "
        "below are over clips, for one training each: they do not hold this spread."
    )
    sections = [Section("Trainings", [said], [Table(["Seed", "Training films", "Percent correct"], cells)])]
    if len(measured["curve"]) > 1:
        curve = Picture("curve.png", "Percent correct over training films", charts.learning_curve(measured["curve"]))
        sections.append(Section("Learning curve", ["One training each, with the first seed."], pictures=[curve]))
    rendering.write(folder, f"Seeds and films on {dataset}", [], sections)
