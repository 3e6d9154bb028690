"""What a file of questions holds, for those who look at a run's data."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq


def describe(path: Path) -> tuple[dict[str, str], dict[str, int]]:
    """Type by column, and the numbers of rows, clips and films; texts are not read."""
    schema = pq.read_schema(path)
    table = pd.read_parquet(path, columns=["movie_name", "year", "yt_clip_link"])
    films = len(table[["movie_name", "year"]].drop_duplicates())
    counts = {"rows": len(table), "clips": int(table["yt_clip_link"].nunique()), "films": films}
    return {field.name: str(field.type) for field in schema}, counts
