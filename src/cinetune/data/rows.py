"""Rows of question files: Parquet, CSV, JSON, and the dataset on the Hugging Face hub."""

from __future__ import annotations

import ast
import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from cinetune.cinepile import questions
from cinetune.errors import InputError, reason_of

HUB = "tomg-group-umd/cinepile"
VERSIONS = ("v1", "v2")
SPLITS = ("train", "test")
BATCH_ROWS = 1000
NUMBERS = ("year", "answer_key_position")
LISTS = ("genre", "choices")


def rows_of(
    sources: str, revision: str, videos: Path | None
) -> Iterator[tuple[str, str, Path | None, Iterable[Mapping[str, Any] | str]]]:
    """Split, name, root of file links and rows of each source; a split comes once."""
    if sources in VERSIONS:
        for split in SPLITS:
            yield split, f"{HUB} {sources} {split}", None, _hub_rows(sources, revision, split)
        return
    by_split: dict[str, list[Path]] = {split: [] for split in SPLITS}
    for name in sources.split("|"):
        by_split[_split_of(Path(name))].append(Path(name))
    for split, paths in by_split.items():
        if paths:
            root = (videos or paths[0].parent).resolve()
            yield split, " + ".join(path.name for path in paths), root, (row for path in paths for row in _rows(path))


def _split_of(path: Path) -> str:
    if not path.is_file():
        raise InputError(
            f"questions {str(path)!r} is not a file: name Parquet, CSV or JSON files separated by |, or v1 or v2."
        )
    return "test" if path.stem.lower().startswith("test") else "train"


def _rows(path: Path) -> Iterator[Mapping[str, Any] | str]:
    readers = {".parquet": _parquet_rows, ".csv": _csv_rows, ".json": _json_rows, ".jsonl": _json_rows}
    if path.suffix.lower() not in readers:
        raise InputError(f"questions {str(path)!r} must be a .parquet, .csv, .json or .jsonl file.")
    number = -1
    try:
        for number, row in enumerate(readers[path.suffix.lower()](path)):
            missing = _missing(row)
            if missing and number == 0:
                raise InputError(
                    f"questions {str(path)!r} lacks the column {missing!r}: CinePile's columns are needed, or "
                    "url and title."
                )
            yield f"column {missing!r} is missing" if missing else row
    except InputError:
        raise
    except (pa.ArrowException, OSError, csv.Error, ValueError) as error:
        raise InputError(f"questions {str(path)!r} cannot be read ({reason_of(error)}): make the file again.") from None
    if number < 0:
        raise InputError(f"questions {str(path)!r} has no rows: nothing can be downloaded for it.")


def _missing(row: Mapping[str, Any] | str) -> str | None:
    if isinstance(row, str):
        return None
    columns = ("url", "title") if "url" in row and "question" not in row else questions.COLUMNS
    return next((name for name in columns if name not in row), None)


def _parquet_rows(path: Path) -> Iterator[Mapping[str, Any] | str]:
    with pyarrow.parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(BATCH_ROWS):
            yield from _batch_rows(batch)


def _batch_rows(batch: pa.RecordBatch) -> Iterator[Mapping[str, Any] | str]:
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        # Nothing was handed out yet: it is one row's fault, and that row's alone.
        for number in range(batch.num_rows):
            try:
                yield batch.slice(number, 1).to_pylist()[0]
            except UnicodeDecodeError:
                yield "a text is not UTF-8"


def _csv_rows(path: Path) -> Iterator[Mapping[str, Any] | str]:
    csv.field_size_limit(1 << 28)
    # What is not UTF-8 is judged row by row; nothing is guessed to be a number or to be missing.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        for row in csv.DictReader(file):
            if None in row or None in row.values():
                yield "has more or fewer fields than the header"
                continue
            parsed: dict[str, Any] = dict(row)
            for name in NUMBERS:
                parsed |= {name: int(row[name])} if name in row and row[name].strip().isdecimal() else {}
            for name in LISTS:
                parsed |= {name: _list_of(row[name])} if name in row else {}
            yield parsed


def _list_of(text: str) -> Any:
    """A list that was written as JSON or as Python writes it; else the text, for the row's check to refuse."""
    try:
        return ast.literal_eval(text) if text.startswith("[") else text
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def _json_rows(path: Path) -> Iterator[Mapping[str, Any] | str]:
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        is_list = file.read(256).lstrip().startswith("[")
        file.seek(0)
        for row in json.load(file) if is_list else _json_lines(file):
            yield row if isinstance(row, dict | str) else f"is no object but {row!r}"


def _json_lines(lines: Iterable[str]) -> Iterator[Any]:
    for line in filter(str.strip, lines):
        try:
            yield json.loads(line)
        except json.JSONDecodeError as error:
            yield f"is not JSON: {error}"


def _hub_rows(version: str, revision: str, split: str) -> Iterator[Mapping[str, Any] | str]:
    import datasets
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    if not revision:
        raise InputError("download.revision is empty: name the commit of the hub's dataset, its rows change.")
    try:
        # Without a name the hub gives whichever version its card calls the default today.
        names = datasets.get_dataset_config_names(HUB, revision=revision)
        name = version if version in names else "default"
        table = datasets.load_dataset(HUB, name, revision=revision, split=split)
    except (datasets.exceptions.DatasetsError, HfHubHTTPError, OfflineModeIsEnabled, OSError, ValueError) as error:
        raise InputError(
            f"questions {version!r} cannot be loaded from {HUB} ({reason_of(error)}): accept its terms and log in with "
            "`hf auth login`, or name local files."
        ) from None
    for batch in table.with_format("arrow").iter(BATCH_ROWS):
        for found in batch.to_batches():
            yield from _batch_rows(found)
