"""Each format is read by one grammar, whichever program wrote the file."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from builders.questions import row, take
from builders.refusals import sentence
from cinetune.data.sources import formats
from cinetune.task.description import CINEPILE

pytestmark = pytest.mark.data

CHOICES = ["it's a boat", 'a "hill"', "at sea, or not", "None", "a\\b\n\u00e9\U0001f3ac"]


def written(path: Path, cells: dict[str, Any], delimiter: str = ",", encoding: str = "utf-8") -> Path:
    """A CSV file of one row, its cells as they are given."""
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerows([list(cells), list(cells.values())])
    return path


@pytest.mark.parametrize(
    "text",
    [
        str(CHOICES),
        json.dumps(CHOICES),
        json.dumps(CHOICES, ensure_ascii=False),
        json.dumps(CHOICES).replace("/", "\\/"),
        str(np.array(CHOICES, dtype=object)),
        repr(np.array(CHOICES, dtype=object)),
        "  [" + "\n ".join(map(repr, CHOICES)) + "]\n",
    ],
)
def test_a_list_in_a_csv_cell_is_read_as_json_python_and_numpy_write_it(tmp_path: Path, text: str) -> None:
    path = written(tmp_path / "a.csv", {"choices": text, "genre": "['Drama' 'Crime']"})
    assert list(formats.csv_rows(path)) == [{"choices": CHOICES, "genre": ["Drama", "Crime"]}]


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ('["a\\/b"]', ["a/b"]), (r'["\ud83c\udfac"]', ["🎬"]), ("[]", []), ("['a', None, 1.5]", ["a", None, 1.5]),
        ("Drama", "Drama"), ("['a", "['a"), ("[a b", "[a b"), ("[__import__('os')]", "[__import__('os')]"),
        ("[nan]", "[nan]"), ("['a'] + ['b']", "['a'] + ['b']"),
    ],
)  # fmt: skip
def test_what_a_cell_says_is_kept_or_left_for_the_row_to_be_refused(tmp_path: Path, text: str, read: object) -> None:
    assert list(formats.csv_rows(written(tmp_path / "a.csv", {"genre": text}))) == [{"genre": read}]


@pytest.mark.parametrize(
    ("text", "read"), [("1992", 1992), ("1992.0", 1992.0), (" 1992 ", 1992), ("1.992E3", 1992.0), ("1992.5", 1992.5)]
)
def test_a_whole_number_may_have_a_decimal_point(tmp_path: Path, text: str, read: float) -> None:
    assert list(formats.csv_rows(written(tmp_path / "a.csv", {"year": text}))) == [{"year": read}]


@pytest.mark.parametrize("text", ["", "MCMXCII", "٣", "1,992", "nan", "1_9"])
def test_what_is_no_number_stays_text(tmp_path: Path, text: str) -> None:
    assert list(formats.csv_rows(written(tmp_path / "a.csv", {"year": text, "x": "1"}))) == [{"year": text, "x": "1"}]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_csv_file_is_read_as_excel_saves_it(tmp_path: Path, delimiter: str, encoding: str) -> None:
    cells = {name: str(value) for name, value in row().items()} | {"hard_split": "TRUE", "year": "1992.0"}
    path = written(tmp_path / "test.csv", cells, delimiter, encoding)
    with path.open("a", encoding=encoding.removesuffix("-sig").replace("16", "16-le"), newline="") as file:
        file.write(delimiter * (len(cells) - 1) + "\r\n")
    taken, [clip] = take(path)
    assert taken.rejected == [] and taken.num_rows == 1
    assert (clip.group, clip.questions[0].hard_split) == ("Harbour / Men, 2 (1992)", "True")


def test_what_pandas_saves_is_read_back(tmp_path: Path) -> None:
    rows = [row(number, genre=np.array(["Drama", "Crime"], dtype=object)) for number in range(3)]
    table = pd.DataFrame([*rows, row(answer_key_position=None, question=None)])
    table.to_csv(tmp_path / "train.csv")
    table.to_json(tmp_path / "train.json", orient="records")
    table.to_json(tmp_path / "train.jsonl", orient="records", lines=True)
    table.to_parquet(tmp_path / "train.parquet")
    for suffix in ("csv", "json", "jsonl", "parquet"):
        taken, [clip] = take(tmp_path / f"train.{suffix}")
        assert len(clip.questions) == 3 and len(taken.rejected) == 1 and clip.genres == ("Drama", "Crime"), suffix


@pytest.mark.parametrize("category", list(CINEPILE.shorts))
@pytest.mark.parametrize("written_as", ["\r\n", "_x000D_\n", " ", "\\n", "\\r\\n", "\n ", "\u00a0"])
@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_a_category_is_known_however_its_line_break_is_written(
    tmp_path: Path, category: str, written_as: str, suffix: str
) -> None:
    changed = row(question_category=category.replace("\n", written_as))
    path = tmp_path / f"test{suffix}"
    path.write_text(json.dumps([changed]), encoding="utf-8")
    if suffix == ".csv":
        written(path, changed)
    taken, [clip] = take(path)
    assert taken.rejected == [] and clip.questions[0].category == category


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize(
    "content",
    [
        {"data": [row(0), row(1)]},
        {"rows": [{"row_idx": 0, "row": row(0)}]},
        {name: {"0": value} for name, value in row().items()},
        {name: [value] for name, value in row().items()},
        3,
    ],
)
@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_json_that_is_one_value_and_no_list_of_rows_is_one_fault(
    tmp_path: Path, content: object, indent: int | None, suffix: str
) -> None:
    path = tmp_path / f"test{suffix}"
    path.write_text(json.dumps(content, indent=indent), encoding="utf-8")
    assert "no list of rows" in sentence(lambda: take(path))


def test_a_json_line_that_is_broken_is_one_rejected_row(tmp_path: Path) -> None:
    lines = [json.dumps(row(number)) for number in range(3)]
    for number in range(3):
        spoilt = [line if n != number else line.replace('"year":', '"year"') for n, line in enumerate(lines)]
        (tmp_path / "test.jsonl").write_text("\n".join(spoilt), encoding="utf-8")
        taken, [clip] = take(tmp_path / "test.jsonl")
        assert len(clip.questions) == 2 and [r["row"] for r in taken.rejected] == [f"test.jsonl, row {number}"]
