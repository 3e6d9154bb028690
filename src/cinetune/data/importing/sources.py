"""Rows out of question files, each with its name and the split that its file is given for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cinetune.data.importing import layouts
from cinetune.data.importing.records import COLUMNS, REQUIRED
from cinetune.data.sources import formats
from cinetune.data.sources.formats import Row
from cinetune.data.sources.rows import READERS
from cinetune.errors import InputError

SPLITS = ("train", "validation", "test")
# What others call them.
SPLIT_NAMES = {
    "train": "train", "training": "train", "validation": "validation", "val": "validation", "valid": "validation",
    "dev": "validation", "test": "test", "testing": "test",
}  # fmt: skip
PLAIN = "plain"


class NamedRow(NamedTuple):
    """`content` is the row in the plain columns, or a text that says why there is none."""

    name: str
    split: str
    content: Row


def read(sources: str, layout: str, required: tuple[str, ...] = REQUIRED) -> Iterator[NamedRow]:
    """All rows of files separated by |, of which each may be named as `test=<file>`.

    Rows are counted from 1, without the header. Raises InputError for a file that cannot be read at all.
    """
    if not sources:
        raise InputError("questions is empty: name CSV, JSON or Parquet files, separated by |.")
    for source in sources.split("|"):
        split, path = split_of(source)
        number = 0
        for number, row in enumerate(_rows(path, layout), 1):
            if number == 1 and not isinstance(row, str):
                _check_columns(path, row, required)
            yield _named(f"{path.name}, row {number}", split, row)
        if number == 0:
            raise InputError(f"questions {str(path)!r} has no rows: there is nothing to ask.")


def _named(name: str, split: str, row: Row) -> NamedRow:
    said = None if isinstance(row, str) or split else row.get("split")
    if said is None or said == "":
        return NamedRow(name, split, row)
    own = SPLIT_NAMES.get(str(said).strip().lower(), "")
    return NamedRow(name, own, row if own else f"split {said!r} is none of {', '.join(SPLITS)}")


def split_of(source: str) -> tuple[str, Path]:
    """The split that a source says, empty for none, and its path."""
    said, is_said, rest = source.partition("=")
    split = SPLIT_NAMES.get(said.strip().lower()) if is_said and not Path(source).exists() else ""
    if split is None:
        raise InputError(f"questions {source!r} names the split {said!r}: write train=, validation= or test=<file>.")
    path = Path(rest if split else source)
    if not path.is_file():
        raise InputError(f"questions {str(path)!r} is not a file: name CSV, JSON or Parquet files separated by |.")
    if path.suffix.lower() not in READERS:
        raise InputError(f"questions {str(path)!r} must be a .csv, .jsonl, .json or .parquet file.")
    return split, path


def videos_folder(videos: str, questions: str) -> Path:
    """Where names of videos begin: the folder given, or that of the first question file."""
    return Path(videos) if videos else split_of(questions.split("|")[0])[1].parent


def _rows(path: Path, layout: str) -> Iterator[Row]:
    convert: Callable[[Path], Iterator[Row]] = layouts.READERS.get(layout, _plain)
    with formats.reading(path):
        yield from convert(path)


def _plain(path: Path) -> Iterator[Row]:
    for row in READERS[path.suffix.lower()](path):
        if isinstance(row, str):
            yield row
            continue
        # As people write them.
        plain = {str(name).strip().lower(): value for name, value in row.items()}
        yield plain if len(plain) == len(row) else "has a column twice, written with other capitals or spaces"


def _check_columns(path: Path, row: Mapping[str, Any], required: tuple[str, ...]) -> None:
    missing = [name for name in required if name not in row]
    if missing:
        there = ", ".join(repr(name) for name in list(row)[: len(COLUMNS)])
        raise InputError(
            f"questions {str(path)!r} lacks the column {missing[0]!r}: {', '.join(required)} are needed, there are "
            f"{there}."
        )
