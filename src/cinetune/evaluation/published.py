"""Published results on a task: percent correct, with their sources. Copied, never measured here."""

from __future__ import annotations

import re
from importlib import resources

import pandas as pd

from cinetune.errors import InputError
from cinetune.task.description import CINEPILE, Task

NONE = "none"


def published(version: str, task: Task = CINEPILE) -> pd.DataFrame | None:
    """Rows of "v1" or "v2": model, percent correct by column, source, kind of model.

    None for "none", and for a task that nothing was published on.
    """
    if version == NONE or task.published is None:
        return None
    with resources.files("cinetune.task").joinpath(task.published.file).open(encoding="utf-8") as file:
        rows = pd.read_csv(file)
    known = sorted(rows["dataset"].unique())
    if version not in known:
        raise InputError(f"no published results for {version!r}: choose from {', '.join(known)}.")
    return rows[rows["dataset"] == version].reset_index(drop=True)


def version_of(dataset: str, task: Task = CINEPILE) -> str | None:
    """The published version that a dataset's name stands for; None for any other data."""
    name = re.escape(task.name.lower())
    found = re.fullmatch(rf"{name}(v[12])", re.sub(r"[^a-z0-9]", "", dataset.lower())) if name else None
    return found[1] if found else None


def published_average(dataset: str, is_finetuned: bool, task: Task = CINEPILE) -> float | None:
    """The published average of Video-LLaVA, or of its fine-tune, as a fraction; None where none was published."""
    version = version_of(dataset, task)
    rows = published(version, task) if version else None
    if rows is None:
        return None
    ours = rows[rows["model"].str.contains("Video-LLaVA", regex=False)]
    tuned = ours["model"].str.contains("fine-tune", regex=False)
    chosen = ours[tuned] if is_finetuned and tuned.any() else ours[~tuned]
    return float(chosen["average"].iloc[0]) / 100
