"""Plots as PNG bytes: results by category, published averages, calibration. The same numbers give the same bytes."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

AVERAGE = "average"
# Okabe and Ito's palette: distinct for colour-blind readers and in grey.
OURS = ("#56B4E9", "#D55E00", "#009E73", "#CC79A7", "#F0E442", "#999999")
BESIDE: dict[str, Any] = {"textcoords": "offset points", "va": "center", "fontsize": 9}
MAX_TICKS = 5
KINDS = {"human": ("#009E73", "people"), "closed": ("#0072B2", "closed models"), "open": ("#E69F00", "open models")}


def results(
    models: Mapping[str, Mapping[str, Any]],
    titles: Mapping[str, str],
    chance: float | None,
    title: str,
    reference: pd.DataFrame | None,
    reference_title: str,
) -> bytes:
    """Scores by category with their intervals; published averages, if there are any, in a panel of their own.

    models: by name, a score of metrics.json ("n", "accuracy", "ci95") for AVERAGE and each category; titles: of the
    categories, by short name; chance: the share that a guess gets right.
    """
    heights = [4.4] if reference is None or reference.empty else [4.4, 0.8 + 0.3 * len(reference)]

    def draw(figure: Figure) -> None:
        ours, *others = figure.subplots(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
        _draw_ours(ours, models, titles, chance, title)
        for axes in others:
            _draw_reference(axes, reference, reference_title)

    return _draw(draw, (11, sum(heights) + 0.6))


def reliability(models: Mapping[str, Sequence[Mapping[str, Any]]]) -> bytes:
    """Percent correct over mean confidence with 95 % intervals; `models`: bins of `statistics.calibration`, by name."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot([0, 100], [0, 100], color="#333333", linewidth=1, linestyle=(0, (4, 3)), label="calibrated")
        largest = max((row["n"] for rows in models.values() for row in rows), default=1)
        for (name, rows), colour in zip(models.items(), OURS, strict=False):
            confidence, correct = ([100 * row[key] for row in rows] for key in ("confidence", "accuracy"))
            around = [[abs(100 * (row["ci95"][end] - row["accuracy"])) for row in rows] for end in (0, 1)]
            axes.errorbar(confidence, correct, around, color=colour, linewidth=1.5, elinewidth=1, capsize=3)
            sizes = [20 + 180 * row["n"] / largest for row in rows]
            axes.scatter(confidence, correct, sizes, color=colour, label=_label(name))
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 100)
        axes.set_xlabel("confidence, percent (larger dots: more questions)")
        axes.set_ylabel("percent correct")
        axes.legend(loc="upper left", frameon=False, markerscale=0.6)
        axes.spines[["top", "right"]].set_visible(False)

    return _draw(draw, (6, 5))


def _draw(draw: Callable[[Figure], None], size: tuple[float, float]) -> bytes:
    with matplotlib.rc_context():
        # A user's matplotlibrc must not change the report.
        matplotlib.rcdefaults()
        figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(hspace=0.08, h_pad=0.12, w_pad=0.12))
        FigureCanvasAgg(figure)
        draw(figure)
        content = io.BytesIO()
        # The writer's version in the file would change its bytes with every upgrade.
        figure.savefig(content, dpi=150, format="png", metadata={"Software": None})
        return content.getvalue()


def _draw_ours(
    axes: Axes,
    models: Mapping[str, Mapping[str, Any]],
    categories: Mapping[str, str],
    chance: float | None,
    title: str,
) -> None:
    columns = (AVERAGE, *categories)
    positions, width = np.arange(len(columns)), 0.76 / len(models)
    for side, (name, row) in enumerate(models.items()):
        scores = [row[column] for column in columns]
        heights = np.array([_percent(score["accuracy"]) for score in scores])
        ends = np.array([[_percent(end) for end in score["ci95"] or (None, None)] for score in scores])
        offsets = positions + (side - (len(models) - 1) / 2) * width
        axes.bar(offsets, heights, width * 0.94, color=OURS[side % len(OURS)], label=_label(name))
        errors = np.clip(np.stack([heights - ends[:, 0], ends[:, 1] - heights]), 0, None)
        axes.errorbar(offsets, heights, errors, fmt="none", ecolor="#333333", elinewidth=1.2, capsize=4)
        tops = np.fmax(heights, ends[:, 1])
        for offset, height, top in zip(offsets, heights, tops, strict=True):
            if np.isfinite(height):
                axes.annotate(
                    f"{height:.1f}", (offset, top), (0, 3), textcoords="offset points", ha="center", fontsize=9
                )
    if chance is not None:
        place = (1, 100 * chance)
        axes.axhline(100 * chance, color="#333333", linewidth=1, linestyle=(0, (4, 3)), zorder=0)
        axes.annotate(
            "guessing", place, (4, 0), xycoords=("axes fraction", "data"), textcoords="offset points", va="center"
        )
    counts = [list(models.values())[-1][column]["n"] for column in columns]
    titles = ["Average", *(name.replace(" and ", " and\n") for name in categories.values())]
    axes.set_xticks(positions, [f"{name}\n(n = {count:,})" for name, count in zip(titles, counts, strict=True)])
    axes.tick_params(axis="x", length=0, labelsize=9)
    axes.set_ylim(0, 118)
    axes.set_yticks(range(0, 101, 20))
    axes.set_ylabel("percent correct")
    axes.set_title(title, loc="left", fontweight="bold", parse_math=False)
    axes.legend(loc="upper right", ncols=2, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_reference(axes: Axes, reference: pd.DataFrame, title: str) -> None:
    rows = reference.sort_values(["average", "model"], kind="stable").reset_index(drop=True)
    for kind, (colour, label) in KINDS.items():
        chosen = rows[rows["kind"] == kind]
        if len(chosen):
            axes.barh(chosen.index, chosen["average"], 0.7, color=colour, label=label)
    for position, value in enumerate(rows["average"]):
        axes.annotate(f"{value:.1f}", (value, position), (4, 0), textcoords="offset points", va="center", fontsize=9)
    axes.set_yticks(range(len(rows)), rows["model"])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlim(0, 100)
    axes.set_xlabel("average, percent correct")
    axes.set_title(title, loc="left", fontweight="bold", parse_math=False)
    axes.legend(loc="lower right", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)


def _percent(fraction: float | None) -> float:
    return np.nan if fraction is None else 100 * fraction


def _label(name: str) -> str:
    """A name as it stands: matplotlib takes `$` for mathematics and hides what begins with `_`."""
    return name.replace("$", r"\$").removeprefix("_")


def learning_curve(rows: Sequence[Mapping[str, Any]], groups: str, chance: float | None) -> bytes:
    """Percent correct over training films (or other `groups`), with intervals.

    rows: "films" and "score", a score of metrics.json; chance: the share that a guess gets right.
    """

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        films = np.array([row["films"] for row in rows])
        heights = np.array([_percent(row["score"]["accuracy"]) for row in rows])
        ends = np.array([[_percent(end) for end in row["score"]["ci95"] or (None, None)] for row in rows])
        errors = np.clip(np.stack([heights - ends[:, 0], ends[:, 1] - heights]), 0, None)
        axes.errorbar(films, heights, errors, color=OURS[1], marker="o", capsize=4)
        if chance is not None:
            axes.axhline(100 * chance, color="#333333", linewidth=1, linestyle=(0, (4, 3)))
        axes.set_xscale("log")
        axes.set_xticks(films, [str(count) for count in films])
        axes.minorticks_off()
        axes.set_ylim(0, 100)
        axes.set_xlabel(f"training {groups}")
        axes.set_ylabel("percent correct, 95 % intervals over clips")
        axes.spines[["top", "right"]].set_visible(False)

    return _draw(draw, (6, 4.5))


def importances(shares: Mapping[str, float]) -> bytes:
    """Bars, the most important knob on top; shares: 0..1 by the knob's name."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        names = sorted(shares, key=lambda name: shares[name])
        axes.barh(names, [100 * shares[name] for name in names], color=OURS[0])
        for position, name in enumerate(names):
            axes.annotate(f"{100 * shares[name]:.0f}", (100 * shares[name], position), (4, 0), **BESIDE)
        axes.set_xlim(0, 100)
        axes.set_xlabel("percent of the differences in accuracy")
        axes.tick_params(axis="y", length=0)
        axes.spines[["top", "right"]].set_visible(False)

    return _draw(draw, (6, 1.2 + 0.4 * len(shares)))


def parallel_coordinates(
    axes_of: Sequence[tuple[str, bool, Sequence[float]]], scores: Sequence[float | None], is_cut: Sequence[bool]
) -> bytes:
    """A line a trial through all its settings, coloured by its accuracy (0..1); those that were cut short are dashed.

    axes_of: name, whether it is logarithmic, and each trial's value. A trial without an accuracy is left out.
    """
    shown = [number for number, score in enumerate(scores) if score is not None]
    percents = np.array([_percent(scores[number]) for number in shown])
    colours = Normalize(percents.min(initial=100), percents.max(initial=0))

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        columns = [_Column(name, is_log, np.array(values)) for name, is_log, values in axes_of]
        columns.append(_Column("percent correct", False, np.array([_percent(score) for score in scores])))
        for number, percent in sorted(zip(shown, percents, strict=True), key=lambda pair: pair[1]):
            heights = [column.height(column.values[number]) for column in columns]
            style: dict[str, Any] = {"linestyle": (0, (4, 3)), "alpha": 0.7} if is_cut[number] else {}
            axes.plot(heights, color=colormaps["viridis_r"](colours(percent)), linewidth=2, **style)
        for position, column in enumerate(columns):
            axes.axvline(position, color="#333333", linewidth=1)
            for value in column.ticks():
                place = (position, column.height(value))
                axes.annotate(f"{value:.3g}", place, (4, 0), backgroundcolor="#ffffffb0", **BESIDE)
        axes.set_xticks(range(len(columns)), [column.name for column in columns])
        axes.set_yticks([])
        axes.set_xlim(-0.1, len(columns) - 0.6)
        axes.tick_params(axis="x", length=0)
        axes.spines[:].set_visible(False)

    return _draw(draw, (1.8 * (len(axes_of) + 1), 4.5))


@dataclass(frozen=True)
class _Column:
    """One upright axis: where a value stands on it, 0..1 from its minimum to its maximum."""

    name: str
    is_logarithmic: bool
    values: np.ndarray

    def _scaled(self, values: Any) -> Any:
        return np.log(values) if self.is_logarithmic else values

    def height(self, value: Any) -> float:
        least, most = self._scaled(np.nanmin(self.values)), self._scaled(np.nanmax(self.values))
        return float((self._scaled(value) - least) / (most - least)) if most > least else 0.5

    def ticks(self) -> list[float]:
        """The values themselves where they are few, else the ends and what lies between them."""
        different = sorted(set(self.values[np.isfinite(self.values)]))
        if len(different) <= MAX_TICKS:
            return different
        between = np.linspace(self._scaled(different[0]), self._scaled(different[-1]), MAX_TICKS)
        return list(np.exp(between) if self.is_logarithmic else between)
