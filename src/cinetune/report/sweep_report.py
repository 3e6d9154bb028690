"""The report of a sweep."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution

from cinetune.experiments.sweeps import IS_LOGARITHMIC, SHORT
from cinetune.report import charts, formatting, rendering
from cinetune.report.rendering import Picture, Section, Table


def write(folder: Path, measured: Mapping[str, Any], space: Mapping[str, BaseDistribution], dataset: str) -> None:
    """Write report.md and report.html, with a plot of the importances and one of all trials."""
    rows = [
        [
            str(row["number"]),
            row["name"],
            row["state"],
            formatting.percent(row["accuracy"]),
            str(len(row["validations"])),
        ]
        for row in sorted(measured["trials"], key=_rank, reverse=True)
    ]
    headers = ["Trial", "What differs", "End", "Percent correct", "Validations"]
    said = "On held-out training clips; of a pruned trial the best of its validations. Test clips were not looked at."
    axes = [(SHORT[name], name in IS_LOGARITHMIC, _parallel(name, measured)) for name in space]
    scores = [row["accuracy"] for row in measured["trials"]]
    is_pruned = [row["state"] != "complete" for row in measured["trials"]]
    parallel = charts.parallel_coordinates(axes, scores, is_pruned)
    pictures = [Picture("parallel-coordinates.png", "All trials, pruned ones dashed", parallel)]
    if measured["importances"]:
        shares = {SHORT[name]: share for name, share in measured["importances"].items()}
        drawn = charts.importances(shares)
        pictures.append(Picture("importances.png", "Share of the differences that each knob explains", drawn))
    sections = [Section("Trials", [said], [Table(headers, rows)]), Section("What matters", pictures=pictures)]
    rendering.write(folder, f"Training settings on {dataset}", [], sections)


def _parallel(name: str, measured: Mapping[str, Any]) -> list[float]:
    return [row["chosen"][name] for row in measured["trials"]]


def _rank(row: Mapping[str, Any]) -> tuple[bool, float]:
    return row["state"] == "complete", -1.0 if row["accuracy"] is None else row["accuracy"]
