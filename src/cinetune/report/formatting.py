"""Scores, intervals and values of data files as short text for tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

NOTHING = "–"
MAX_EXCERPT_CHARS = 160


SLIGHT = "†"  # behind a score by logit whose letters have little probability: `sections.slight_mass_sentence`
FEW = "*"  # behind an interval over fewer than 30 clips, as `sections.introduction` explains


def score_text(score: Mapping[str, Any] | float | None) -> str:
    """A score of metrics.json as "78.3 (75.9–80.6)", a published percentage as "44.2"."""
    if isinstance(score, Mapping):
        if score["accuracy"] is None:
            return NOTHING
        text = f"{100 * score['accuracy']:.1f}{SLIGHT if score.get('slight_mass') else ''}"
        if score["ci95"]:
            low, high = score["ci95"]
            text += f" ({100 * low:.1f}–{100 * high:.1f}){_few(score)}"
        return text
    return NOTHING if score is None or np.isnan(score) else f"{score:.1f}"


def change(part: Mapping[str, Any]) -> str:
    """A part of a comparison as "+3.1 (+1.0 to +5.2)", in percentage points; a rounded zero has no minus."""
    difference, interval = part["difference"], part["ci95"]
    if difference is None:
        return NOTHING
    text = f"{100 * difference:+z.1f}"
    return f"{text} ({100 * interval[0]:+z.1f} to {100 * interval[1]:+z.1f}){_few(part)}" if interval else text


def drop(part: Mapping[str, Any]) -> str:
    """`change` without its plus signs, for a column of losses."""
    return change(part).replace("+", "")


def _few(part: Mapping[str, Any]) -> str:
    return FEW if part.get("few_clusters") else ""


def p_value(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def percent(fraction: float | None) -> str:
    return NOTHING if fraction is None else f"{100 * fraction:.1f}"


def probability(value: float) -> str:
    """In percent, to two digits where there is little of it."""
    return f"{100 * value:.1f} %" if value >= 0.001 else f"{100 * value:.1g} %"


def share(count: int, total: int) -> str:
    return f"{count:,} ({100 * count / total:.1f} %)" if total else NOTHING


def counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def plain(value: Any) -> str:
    """Any value of a data file as one short line of printable text."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return NOTHING
    line = " ".join(str(value).split())
    line = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in line)
    return line if len(line) <= MAX_EXCERPT_CHARS else line[: MAX_EXCERPT_CHARS - 1] + "…"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns for a terminal: the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
