"""What a model loses under each ablation, with intervals, and how far it keeps to an option that is moved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from cinetune import page
from cinetune.ablations import PLAIN, ROTATIONS
from cinetune.answers import LETTERS
from cinetune.metrics import CATEGORY_TITLES, SCORERS, agreement_of_rotations, compare
from cinetune.page import Section, Table

SCORER = "logit"


def measure(
    tables: Mapping[str, pd.DataFrame],
    summaries: Mapping[str, Mapping[str, Any]],
    bootstrap_samples: int,
    seed: int,
    resample: str,
) -> dict[str, Any]:
    """ablations.json: predictions and metrics.json by ablation, the plain ones among them, as drops.

    A drop is the plain accuracy less that under the ablation, on the same questions, with its paired interval.
    """
    plain = summaries[PLAIN]
    drops = {
        name: {
            "accuracy": summaries[name]["scorers"][SCORER]["overall"],
            "drop": compare(tables[PLAIN], table, SCORER, bootstrap_samples, seed, resample),
        }
        for name, table in tables.items()
        if name != PLAIN
    }
    rotated = {name: tables[name] for name in (PLAIN, *ROTATIONS) if name in tables}
    return {
        **{key: plain[key] for key in ("model", "dataset", "split")},
        "scorer": SCORER,
        "resampled": resample,
        "plain": plain["scorers"][SCORER]["overall"],
        "ablations": drops,
        "rotations": {scorer: agreement_of_rotations(rotated, scorer) for scorer in SCORERS}
        if len(rotated) > 1
        else None,
    }


def figures(measured: Mapping[str, Any]) -> dict[str, float | None]:
    """As MLflow metrics: `drop/<ablation>`, its interval and categories, `rotations/consistent`, ..."""
    found: dict[str, float | None] = {}
    for name, content in measured["ablations"].items():
        overall = content["drop"]["overall"]
        low, high = overall["ci95"] or (None, None)
        found |= {f"drop/{name}": overall["difference"], f"drop/{name}/ci_low": low, f"drop/{name}/ci_high": high}
        found |= {f"drop/{name}/{short}": part["difference"] for short, part in content["drop"]["categories"].items()}
    if measured["rotations"]:
        agreement = measured["rotations"][SCORER]
        found |= {f"rotations/{name}": agreement[name] for name in ("consistent", "pairs_agreeing")}
        found |= {f"rotations/place/{letter}": share for letter, share in agreement["places"].items()}
    return found


def table(measured: Mapping[str, Any]) -> Table:
    """One row an ablation: accuracy, drop with interval, p, drop by category."""
    rows = [["nothing withheld", page.score_text(measured["plain"]), "", "", *[""] * len(CATEGORY_TITLES)]]
    for name, content in measured["ablations"].items():
        overall, categories = content["drop"]["overall"], content["drop"]["categories"]
        rows.append(
            [
                name,
                page.score_text(content["accuracy"]),
                page.points(overall["difference"], overall["ci95"]),
                page.p_value(overall["p_value"]),
                *(page.points(categories[short]["difference"], categories[short]["ci95"]) for short in CATEGORY_TITLES),
            ]
        )
    return Table(["Ablation", "Accuracy", "Drop", "p", *(short.upper() for short in CATEGORY_TITLES)], rows)


def console(measured: Mapping[str, Any]) -> str:
    content = table(measured)
    return page.aligned([[str(cell) for cell in row[:4]] for row in (content.headers, *content.rows)])


def sections(measured: Mapping[str, Any]) -> list[Section]:
    drops = Section(
        "What is lost",
        [
            f"Percent correct by {SCORER}. The drop is in percentage points on the same questions, with its 95 % "
            f"interval from resampling {measured['resampled']}; a positive drop is a loss. p is McNemar's exact test."
        ],
        [table(measured)],
    )
    if not measured["rotations"]:
        return [drops]
    rows = [
        [
            scorer,
            f"{found['n']:,}",
            page.percent(found["consistent"]),
            page.percent(found["pairs_agreeing"]),
            *(page.percent(found["places"][letter]) for letter in LETTERS),
        ]
        for scorer, found in measured["rotations"].items()
    ]
    headers = ["Scorer", "Questions", "Same option always", "Two rotations agree", *(f"chose {x}" for x in LETTERS)]
    note = (
        "Each question was asked with its options in several rotations, behind one reading of its clip. A model that "
        "goes by the options' content chooses the same one always, and each letter equally often over a full round."
    )
    return [drops, Section("Does the place of an option matter?", [note], [Table(headers, rows)])]
