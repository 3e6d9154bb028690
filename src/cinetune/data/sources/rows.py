"""Where rows of questions come from: files, each for one split, and the dataset on the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from cinetune.data.sources import formats, hub
from cinetune.data.sources.formats import Row
from cinetune.errors import InputError
from cinetune.task.description import CINEPILE

SPLITS = ("train", "test")
READERS = {
    ".parquet": formats.parquet_rows, ".csv": formats.csv_rows, ".json": formats.json_rows, ".jsonl": formats.json_rows,
}  # fmt: skip
# What a name says that is not meant for training.
HELD_OUT = re.compile(r"test|val|dev|holdout|held.?out")
HELD_OUT_FOLDERS = {"test", "val", "valid", "validation", "dev", "eval", "holdout"}


def rows_of(sources: str, revision: str, videos: Path | None) -> Iterator[tuple[str, str, Path | None, Iterable[Row]]]:
    """Split, name, root of file links and rows of each source; a split comes once."""
    if sources in hub.VERSIONS:
        for split in SPLITS:
            yield split, f"{hub.NAME} {sources} {split}", None, hub.rows(sources, revision, split)
        return
    by_split: dict[str, list[Path]] = {split: [] for split in SPLITS}
    for source in sources.split("|"):
        split, path = _split_of(source)
        by_split[split].append(path)
    for split, paths in by_split.items():
        if paths:
            root = (videos or paths[0].parent).resolve()
            yield split, " + ".join(path.name for path in paths), root, (row for path in paths for row in _rows(path))


def _split_of(source: str) -> tuple[str, Path]:
    """The split that a source says (`test=questions.csv`) or that its name begins with, and its path."""
    said, is_said, rest = source.partition("=")
    if is_said and not Path(source).exists():
        if said not in SPLITS:
            raise InputError(f"questions {source!r} names the split {said!r}: write train=<file> or test=<file>.")
        return said, _file(rest)
    path = _file(source)
    name, folder = path.stem.lower(), path.absolute().parent.name
    if name.startswith("test") and "train" not in name:
        return "test", path
    told = HELD_OUT.search(name)
    if told or (folder.lower() in HELD_OUT_FOLDERS and not name.startswith("train")):
        what = told[0] if told else folder
        raise InputError(
            f"questions {str(path)!r} may be for training or not, it says {what!r}: write train={path} or test={path}."
        )
    return "train", path


def _file(name: str) -> Path:
    path = Path(name)
    if not path.is_file():
        raise InputError(
            f"questions {str(path)!r} is not a file: name Parquet, CSV or JSON files separated by |, or v1 or v2."
        )
    if path.suffix.lower() not in READERS:
        raise InputError(f"questions {str(path)!r} must be a .parquet, .csv, .json or .jsonl file.")
    return path


def _rows(path: Path) -> Iterator[Row]:
    number = -1
    with formats.reading(path):
        for number, row in enumerate(READERS[path.suffix.lower()](path)):
            missing = _missing(row)
            if missing and number == 0:
                raise InputError(
                    f"questions {str(path)!r} lacks the column {missing!r}: CinePile's columns are needed, or "
                    "url and title."
                )
            yield f"column {missing!r} is missing" if missing else row
    if number < 0:
        raise InputError(f"questions {str(path)!r} has no rows: nothing can be downloaded for it.")


def _missing(row: Row) -> str | None:
    if isinstance(row, str):
        return None
    columns = ("url", "title") if "url" in row and "question" not in row else CINEPILE.columns.values()
    return next((name for name in columns if name not in row and name != "clip_id"), None)
