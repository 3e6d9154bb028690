"""What a figure owes to chance and to data: its spread over training seeds, its growth with training films."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cinetune.errors import InputError
from cinetune.evaluation.metrics import SCORERS
from cinetune.evaluation.statistics import deviation_interval
from cinetune.task import data_card, description
from cinetune.task.groups import groups_of, keys_of

SCORER = "logit"


def read_numbers(name: str, text: str) -> list[int]:
    """Whole numbers above 0 between spaces or commas, each once."""
    words = text.replace(",", " ").split()
    wrong = [word for word in words if not word.isdecimal() or int(word) == 0]
    if wrong:
        raise InputError(f"{name} holds {wrong[0]!r}: write whole numbers above 0, as in '1 2 3'.")
    return list(dict.fromkeys(int(word) for word in words))


def films_of(root: Path) -> list[str]:
    """Keys of the training films, or other groups (`groups.group_key`), in order."""
    return sorted(groups_of(root, "train"))


def with_films(root: Path, films: Sequence[str], target: Path) -> None:
    """A data folder like `root` whose training questions are of these films (keys) alone; clips are linked."""
    (target / "questions").mkdir(parents=True)
    rows = pd.read_parquet(root / "questions" / "train.parquet")
    mask = [key in films for key in keys_of(rows, description.of_folder(root))]
    rows[mask].to_parquet(target / "questions" / "train.parquet", index=False)
    asked = ("questions/validation.parquet", "questions/test.parquet")
    for name in (*asked, "clips", "clips.parquet", description.FILE, data_card.CARD):
        if (root / name).exists():
            (target / name).symlink_to((root / name).resolve())


def choose_films(films: Sequence[str], count: int, seed: int) -> list[str]:
    """`count` films; fewer of them are always among more. Raises InputError where there are not so many."""
    if not 2 <= count <= len(films):
        raise InputError(
            f"study.films asks for {count} of {len(films)} training films: choose from 2 (one trains, one validates) "
            f"to {len(films)}."
        )
    return list(np.random.default_rng(seed).permutation(films)[:count])


def measure(trained: Sequence[Mapping[str, Any]], all_films: int) -> dict[str, Any]:
    """study.json. `trained`: "seed", "films" and metrics.json ("metrics") of each training."""
    rows = []
    for one in trained:
        scores = {scorer: one["metrics"]["scorers"][scorer]["overall"] for scorer in SCORERS}
        rows.append({"seed": one["seed"], "films": one["films"], "score": scores[SCORER], "scores": scores})
    on_all_films = [row["scores"] for row in rows if row["films"] == all_films]
    spreads = {scorer: spread([scores[scorer]["accuracy"] for scores in on_all_films]) for scorer in SCORERS}
    first = trained[0]["seed"]
    curve = sorted((row for row in rows if row["seed"] == first), key=lambda row: row["films"])
    first_summary = trained[0]["metrics"]
    told = {name: first_summary[name] for name in ("chance", "task") if name in first_summary}
    return {
        **told,
        "scorer": SCORER,
        "seeds": spreads[SCORER],
        "seeds_by_scorer": spreads,
        "curve": curve,
        "trainings": rows,
    }


def spread(accuracies: Sequence[float]) -> dict[str, float | None]:
    """Mean, range and sample standard deviation, with its 95 % interval by chi-square; null for fewer than two."""
    deviation = float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else None
    low, high = deviation_interval(deviation, len(accuracies))
    return {
        "n": len(accuracies),
        "mean": float(np.mean(accuracies)),
        "standard_deviation": deviation,
        "standard_deviation_low": low,
        "standard_deviation_high": high,
        "least": min(accuracies),
        "most": max(accuracies),
    }


def mlflow_metrics(measured: Mapping[str, Any]) -> dict[str, float | None]:
    """For the run: the spread over seeds, and the accuracy by number of films; other scorers under their names."""
    found: dict[str, float | None] = {}
    for scorer, seeds in measured["seeds_by_scorer"].items():
        prefix = "" if scorer == SCORER else f"{scorer}/"
        found |= {f"{prefix}seeds/{name}": value for name, value in seeds.items()}
        found |= {f"{prefix}curve/{row['films']}_films": row["scores"][scorer]["accuracy"] for row in measured["curve"]}
    return found
