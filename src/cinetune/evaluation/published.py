"""Published CinePile results: percent correct, with their sources. Copied, never measured here."""

from __future__ import annotations

import re
from importlib import resources

import pandas as pd

from cinetune.errors import InputError


def published(version: str) -> pd.DataFrame:
    """Rows of "v1" or "v2": model, percent correct by column, source, kind of model."""
    with resources.files("cinetune.evaluation").joinpath("published.csv").open(encoding="utf-8") as file:
        rows = pd.read_csv(file)
    known = sorted(rows["dataset"].unique())
    if version not in known:
        raise InputError(f"no published results for {version!r}: choose from {', '.join(known)}.")
    return rows[rows["dataset"] == version].reset_index(drop=True)


def version_of(dataset: str) -> str | None:
    """The published version that a dataset's name stands for; None for any other data."""
    found = re.fullmatch(r"cinepile(v[12])", re.sub(r"[^a-z0-9]", "", dataset.lower()))
    return found[1] if found else None


def published_average(dataset: str, is_finetuned: bool) -> float | None:
    """The published average of Video-LLaVA, or of its fine-tune, as a fraction; None where none was published."""
    version = version_of(dataset)
    if version is None:
        return None
    rows = published(version)
    ours = rows[rows["model"].str.contains("Video-LLaVA", regex=False)]
    tuned = ours["model"].str.contains("fine-tune", regex=False)
    chosen = ours[tuned] if is_finetuned and tuned.any() else ours[~tuned]
    return float(chosen["average"].iloc[0]) / 100
