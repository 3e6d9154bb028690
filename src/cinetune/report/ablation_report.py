"""The report of ablations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cinetune.evaluation.ablation_effects import SCORER
from cinetune.evaluation.ablations import PLAIN, seen_under
from cinetune.files import whole_folder, write_json
from cinetune.report import formatting, rendering
from cinetune.report.rendering import Section, Table
from cinetune.report.sections import few_sentence
from cinetune.task import description


def table(measured: Mapping[str, Any]) -> Table:
    """One row an ablation: what the model sees, questions, accuracy, drop with interval, p."""
    plain = measured["plain"]
    rows = [["nothing withheld", seen_under(PLAIN), f"{plain['n']:,}", formatting.score_text(plain), "", ""]]
    for name, content in measured["ablations"].items():
        overall = content["drop"]["overall"]
        accuracy = formatting.score_text(content["accuracy"])
        drop = formatting.change(overall), formatting.p_value(overall["p_value_holm"])
        rows.append([name, seen_under(name), f"{overall['n']:,}", accuracy, *drop])
    return Table(["Ablation", "The model sees", "Questions", "Accuracy", "Drop", "p"], rows)


def by_category(measured: Mapping[str, Any]) -> Table:
    """The drop in each category, one row an ablation; the last row counts questions."""
    shorts = description.saved(measured.get("task")).categories
    drops = {name: content["drop"]["categories"] for name, content in measured["ablations"].items()}
    rows = [[name, *(formatting.drop(parts[short]) for short in shorts)] for name, parts in drops.items()]
    fewest = {short: min(parts[short]["n"] for parts in drops.values()) for short in shorts}
    return Table(
        ["Drop by category", *(short.upper() for short in shorts)],
        [*rows, ["questions", *(f"{fewest[short]:,}" for short in shorts)]],
    )


def console(measured: Mapping[str, Any]) -> str:
    content = table(measured)
    shown = [[str(cell) for cell in row] for row in (content.headers, *content.rows)]
    return formatting.aligned([[name, *figures] for name, _, _, *figures in shown])


def sections(measured: Mapping[str, Any]) -> list[Section]:
    tables, legend = [table(measured)], []
    if categories := description.saved(measured.get("task")).categories:
        tables.append(by_category(measured))
        legend = ["; ".join(f"{short.upper()}: {' '.join(name.split())}" for short, name in categories.items())]
    drops = Section(
        "What is lost",
        [
            f"Percent correct by {SCORER}. The drop is in percentage points on the same questions, with its 95 % "
            f"interval over {measured['resampled']}; a positive drop is a loss. p is that of a sign-flip test, "
            f"adjusted by Holm for the {len(measured['ablations'])} ablations. {few_sentence(measured['resampled'])}",
            *legend,
        ],
        tables,
    )
    if not measured["rotations"]:
        return [drops]
    letters = description.saved(measured.get("task")).letters
    chosen, right = [], []
    for scorer, found in measured["rotations"].items():
        same = [formatting.percent(found[name]) for name in ("consistent", "pairs_agreeing")]
        chosen.append([scorer, f"{found['n']:,}", *same, *(formatting.percent(found["places"][x]) for x in letters)])
        by_place = [formatting.percent(found["accuracy_by_place"][x]) for x in letters]
        right.append([scorer, *by_place, formatting.percent(found["spread_by_place"])])
    note = (
        "Each question was asked with its options in several rotations, behind one reading of its clip. A model that "
        "goes by the options' content chooses the same one always, and each letter equally often over a full round. "
        "Below, how often it was right where the right option stood at each letter, and the spread in points."
    )
    headers = ["Scorer", "Questions", "Same option always", "Two rotations agree", *(f"chose {x}" for x in letters)]
    places = ["Scorer", *(f"right at {x}" for x in letters), "Spread"]
    return [
        drops,
        Section("Does the place of an option matter?", [note], [Table(headers, chosen), Table(places, right)]),
    ]


def write(target: Path, measured: Mapping[str, Any]) -> None:
    """Write a folder with ablations.json, report.md and report.html."""
    with whole_folder(target) as folder:
        write_json(folder / "ablations.json", measured)
        title = f"What {measured['model']} loses on {measured['dataset']} ({measured['split']} split)"
        rendering.write(folder, title, [], sections(measured))
