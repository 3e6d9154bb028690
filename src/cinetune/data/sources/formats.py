"""Rows out of files: one reader with one grammar for each of Parquet, CSV and JSON, as pandas and Excel write them.

A reader gives a row as a mapping, or as a text that says why there is none.
"""

from __future__ import annotations

import ast
import codecs
import csv
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from cinetune.errors import InputError, reason_of

Row = Mapping[str, Any] | str
BATCH_ROWS = 1000
NUMBERS = ("year", "answer_key_position")
LISTS = ("genre", "choices")
DELIMITERS = ",;\t"
MAX_KEYS_SHOWN = 3
NUMBER = re.compile(r"\s*[+-]?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?\s*", re.ASCII)
ARRAY = re.compile(r"array\((\[.*\])(?:,\s*dtype=[^)]*)?\)", re.DOTALL)
# Between brackets: texts as Python writes them, words such as None, and what separates them.
ELEMENT = re.compile(r"""('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[\w.+-]+)|[\s,]+""", re.DOTALL)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """What a reader raises for a file that is damaged becomes InputError, in a sentence that names the file."""
    try:
        yield
    except InputError:
        raise
    except (pa.ArrowException, OSError, csv.Error, ValueError, RecursionError) as error:
        raise InputError(f"questions {str(path)!r} cannot be read ({reason_of(error)}): make the file again.") from None


def parquet_rows(path: Path) -> Iterator[Row]:
    with pyarrow.parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(BATCH_ROWS):
            yield from batch_rows(batch)


def batch_rows(batch: pa.RecordBatch) -> Iterator[Row]:
    """Of a few hundred rows."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        # Nothing was handed out yet: it is one row's fault, and that row's alone.
        for number in range(batch.num_rows):
            try:
                yield batch.slice(number, 1).to_pylist()[0]
            except UnicodeDecodeError:
                yield "a text is not UTF-8"


def csv_rows(path: Path) -> Iterator[Row]:
    """Separated by commas, semicolons or tabs, whichever the header has most of; in UTF-8, or UTF-16 with its mark."""
    csv.field_size_limit(1 << 28)
    # What is not UTF-8 is judged row by row; nothing is guessed to be a number or to be missing.
    encoding, errors = _encoding(path)
    with path.open(encoding=encoding, errors=errors, newline="") as file:
        header = file.readline()
        file.seek(0)
        reader = csv.DictReader(file, delimiter=max(DELIMITERS, key=header.count))
        _check_names(path, reader.fieldnames or ())
        for row in reader:
            if not any(row.values()):
                # Excel writes rows that were emptied.
                continue
            if None in row or None in row.values():
                yield "has more or fewer fields than the header"
                continue
            parsed: dict[str, Any] = dict(row)
            parsed |= {name: _number_of(row[name]) for name in NUMBERS if name in row}
            parsed |= {name: _list_of(row[name]) for name in LISTS if name in row}
            yield parsed


def _check_names(path: Path, names: Iterable[str]) -> None:
    """Raises InputError for a column that is there twice: one of the two would be lost without a word."""
    twice = [name for name, count in Counter(names).items() if count > 1 and name.strip()]
    if twice:
        raise InputError(f"questions {str(path)!r} has the column {twice[0]!r} twice: leave one out.")


def _encoding(path: Path) -> tuple[str, str]:
    with path.open("rb") as file:
        mark = file.read(2)
    is_wide = mark in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    return ("utf-16", "strict") if is_wide else ("utf-8-sig", "surrogateescape")


def _number_of(text: str) -> Any:
    """A number, with or without a decimal point; else the text, for the row's check to refuse."""
    if not NUMBER.fullmatch(text):
        return text
    try:
        return float(text) if re.search("[.eE]", text) else int(text)
    except ValueError:
        # Thousands of digits.
        return text


def _list_of(text: str) -> Any:
    """A list that was written as JSON, by Python or by numpy; else the text, for the row's check to refuse."""
    text = text.strip()
    wrapped = ARRAY.fullmatch(text)
    text = wrapped[1] if wrapped else text
    if not (text.startswith("[") and text.endswith("]")):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return _elements(text)


def _elements(text: str) -> Any:
    """Python puts commas between the texts of a list, numpy spaces and line breaks."""
    found: list[Any] = []
    place, end = 1, len(text) - 1
    while place < end:
        element = ELEMENT.match(text, place, end)
        if element is None:
            return text
        if element[1]:
            try:
                found.append(ast.literal_eval(element[1]))
            except (ValueError, SyntaxError):
                return text
        place = element.end()
    return found


def json_rows(path: Path) -> Iterator[Row]:
    """A list of objects, or one object a line."""
    encoding, errors = _encoding(path)
    with path.open(encoding=encoding, errors=errors) as file:
        first = next(filter(str.strip, file), "").strip()
        file.seek(0)
        if first.startswith("{") and first.endswith("}"):
            yield from _json_lines(path, file)
            return
        content = json.load(file) if first else []
    if not isinstance(content, list):
        raise _not_rows(path, content)
    for row in content:
        yield row if isinstance(row, dict | str) else f"is no object but {row!r}"


def _json_lines(path: Path, lines: Iterable[str]) -> Iterator[Row]:
    for number, line in enumerate(filter(str.strip, lines)):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield f"is not JSON: {reason_of(error)}"
            continue
        if number == 0 and isinstance(row, dict) and _holds_rows(row):
            raise _not_rows(path, row)
        yield row if isinstance(row, dict | str) else f"is no object but {row!r}"


def _holds_rows(row: Mapping[str, Any]) -> bool:
    """Whether an object is a whole table: rows below a key, or a column below each."""
    asked = row.get("question", row.get("url"))
    return isinstance(asked, dict | list) or (asked is None and any(isinstance(v, dict | list) for v in row.values()))


def _not_rows(path: Path, content: Any) -> InputError:
    keys = ", ".join(map(repr, list(content)[:MAX_KEYS_SHOWN])) if isinstance(content, dict) else repr(content)[:40]
    return InputError(
        f"questions {str(path)!r} is one JSON value ({keys}) and no list of rows: write the list alone, as pandas does "
        "with to_json(orient='records')."
    )
