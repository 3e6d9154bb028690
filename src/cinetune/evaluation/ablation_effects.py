"""What a model loses under each ablation, with intervals, and how far it keeps to an option that is moved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from cinetune.evaluation.ablations import PLAIN, ROTATIONS
from cinetune.evaluation.metrics import SCORERS
from cinetune.evaluation.paired import adjust, agreement_of_rotations, compare
from cinetune.params import Params
from cinetune.task import description
from cinetune.task.description import CINEPILE, Task

SCORER = "logit"


def measure(
    tables: Mapping[str, pd.DataFrame],
    summaries: Mapping[str, Mapping[str, Any]],
    bootstrap_samples: int,
    seed: int,
    resample: str,
    task: Task = CINEPILE,
) -> dict[str, Any]:
    """ablations.json: predictions and metrics.json by ablation, the plain ones among them, as drops.

    A drop is the plain accuracy minus that under the ablation, on the same questions, with its paired interval.
    """
    plain = summaries[PLAIN]
    drops = {
        name: {
            "accuracy": summaries[name]["scorers"][SCORER]["overall"],
            "drop": compare(tables[PLAIN], table, SCORER, bootstrap_samples, seed, resample, task),
        }
        for name, table in tables.items()
        if name != PLAIN
    }
    adjust([content["drop"]["overall"] for content in drops.values()])
    rotated = {name: tables[name] for name in (PLAIN, *ROTATIONS) if name in tables}
    return {
        **{key: plain[key] for key in ("model", "dataset", "split")},
        "scorer": SCORER,
        "resampled": plain["resampled"],
        "plain": plain["scorers"][SCORER]["overall"],
        "ablations": drops,
        "rotations": {scorer: agreement_of_rotations(rotated, scorer, task) for scorer in SCORERS}
        if len(rotated) > 1
        else None,
        "task": task.to_dict(),
    }


def measure_for(params: Params, tables: Mapping[str, pd.DataFrame], summaries: Mapping[str, Any]) -> dict[str, Any]:
    """`measure` with the statistics that the params name."""
    chosen, task = params.evaluate, description.of_folder(params.data.root)
    return measure(tables, summaries, chosen.bootstrap_samples, chosen.seed, chosen.resample, task)


def mlflow_metrics(measured: Mapping[str, Any]) -> dict[str, float | None]:
    """As MLflow metrics: `drop/<ablation>`, its interval and categories, `rotations/consistent`, ..."""
    found: dict[str, float | None] = {}
    for name, content in measured["ablations"].items():
        overall = content["drop"]["overall"]
        low, high = overall["ci95"] or (None, None)
        found |= {f"drop/{name}": overall["difference"], f"drop/{name}/ci_low": low, f"drop/{name}/ci_high": high}
        found |= {f"drop/{name}/{short}": part["difference"] for short, part in content["drop"]["categories"].items()}
    if measured["rotations"]:
        agreement = measured["rotations"][SCORER]
        found |= {f"rotations/{name}": agreement[name] for name in ("consistent", "pairs_agreeing", "spread_by_place")}
        found |= {f"rotations/place/{letter}": share for letter, share in agreement["places"].items()}
    return found
