"""What a run's page tells of its data."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from cinetune.task.description import CINEPILE
from cinetune.tracking import datasets

pytestmark = pytest.mark.experience


def test_a_questions_file_is_told_by_its_columns_rows_clips_and_films(tmp_path: Path) -> None:
    rows = [("Robin Hood", 1973, "a"), ("Robin Hood", 1973, "a"), ("Robin Hood", 1991, "b"), ("Alien", 1979, "c")]
    table = pd.DataFrame(rows, columns=["movie_name", "year", "clip_id"]).assign(question="Who?")
    table.to_parquet(tmp_path / "test.parquet")
    schema, counts = datasets.describe(tmp_path / "test.parquet", CINEPILE)
    assert counts == {"rows": 4, "clips": 3, "films": 3}
    assert list(schema) == ["movie_name", "year", "clip_id", "question"] and schema["year"] == "int64"
