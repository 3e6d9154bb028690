"""What a file of questions holds, for those who look at a run's data."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from cinetune.task.description import Task


def describe(path: Path, task: Task) -> tuple[dict[str, str], dict[str, int]]:
    """Type by column, and the numbers of rows, clips and groups; texts are not read."""
    schema = pq.read_schema(path)
    clip, *of_group = (task.column(name) for name in ("clip_id", "group", "year"))
    told = [column for column in of_group if column in schema.names] or [clip]
    table = pd.read_parquet(path, columns=list(dict.fromkeys([clip, *told])))
    counts = {"rows": len(table), "clips": int(table[clip].nunique()), task.groups: len(table[told].drop_duplicates())}
    return {field.name: str(field.type) for field in schema}, counts
