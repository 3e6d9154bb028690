"""What a request holds: rows, in each of MLflow's forms, and parameters.

Its shape is judged here, before anything is made of it; a row's values are judged one by one where they are answered
(`service`), so that a wrong one costs its row alone. No error shows a value that a client sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import pandas as pd
from pydantic import Field, StrictInt, StrictStr, ValidationError

from cinetune.errors import InputError
from cinetune.serving.requests import bodies

Row = dict[str, Any]

COLUMNS = ("video", "question", "choices", "subtitles", "images")
REQUIRED = ("question",)
# Of what a row shows, one.
SHOWN = ("video", "images")
SCORERS = ("lenient", "strict", "logit")
MAX_ROWS, MAX_NEW_TOKENS = 256, 256
MAX_COLUMNS = 64
LIST = (list, tuple, np.ndarray, pd.Series, pd.Index, pd.api.extensions.ExtensionArray)


@dataclass(frozen=True)
class Options:
    """Generation settings of a request.

    scorer: what decides between options: `lenient` and `strict` read the model's words (lenient takes the
    likeliest option where they name none), `logit` takes the likeliest and makes no words.
    """

    max_new_tokens: int
    scorer: str
    num_frames: int


class Parameters(bodies.Exact):
    """Of a request; None stands for the version's own."""

    kind: ClassVar[str] = "parameter"

    max_new_tokens: StrictInt | None = None
    scorer: StrictStr | None = None
    frames: StrictInt | None = None

    def options(self, defaults: Options) -> Options:
        """Raises InputError for a value out of range."""
        trained = defaults.num_frames
        tokens = _within("max_new_tokens", self.max_new_tokens, defaults.max_new_tokens, MAX_NEW_TOKENS)
        frames = _within("frames", self.frames, trained, trained, f"the {trained} that the model was trained on")
        scorer = defaults.scorer if self.scorer is None else self.scorer
        if scorer not in SCORERS:
            raise InputError(f"scorer must be one of {', '.join(SCORERS)}, got {bodies.shorten(scorer)!r}.")
        return Options(tokens, scorer, frames)


def _within(name: str, value: int | None, default: int, most: int, named: str = "") -> int:
    if value is None:
        return default
    if not 1 <= value <= most:
        # Python refuses to print a number of thousands of digits.
        raise InputError(
            f"{name} must be between 1 and {named or most}, got {value if abs(value) < 10**9 else 'far more'}."
        )
    return value


class _Split(bodies.Exact):
    columns: Annotated[list[StrictStr], Field(max_length=MAX_COLUMNS)]
    data: Annotated[list[list[Any]], Field(max_length=MAX_ROWS)]
    index: Any = None


class Request(bodies.Exact):
    """A request's body; exactly one of the first four is given."""

    dataframe_records: Annotated[list[Row], Field(max_length=MAX_ROWS)] | None = None
    dataframe_split: _Split | None = None
    inputs: Any = None
    instances: Any = None
    params: Parameters | None = None

    def rows(self) -> list[Row]:
        """Raises InputError for what is no table of a model's rows."""
        given = [value for name in FORMATS if (value := getattr(self, name)) is not None]
        if len(given) != 1:
            raise InputError(f"the request must be a JSON object with one of {', '.join(FORMATS)}.")
        rows = _of_split(given[0]) if isinstance(given[0], _Split) else rows_of(given[0])
        check_rows(rows)
        return rows


FORMATS = ("dataframe_records", "dataframe_split", "inputs", "instances")


def read(body: bytes) -> tuple[list[Row], Parameters]:
    """Rows and parameters of a JSON body. Raises InputError for what is none."""
    content = bodies.read(body)
    if not isinstance(content, dict):
        raise InputError(f"the request must be a JSON object with one of {', '.join(FORMATS)}.")
    try:
        request = Request.model_validate(content)
    except ValidationError as error:
        raise InputError(_sentence(error)) from None
    return request.rows(), request.params or Parameters()


def read_parameters(values: Mapping[str, Any]) -> Parameters:
    """Parameters as MLflow hands them over. Raises InputError for an unknown one and a value of another type."""
    plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in values.items()}
    try:
        return Parameters.model_validate(plain)
    except ValidationError as error:
        raise InputError(_sentence(error)) from None


def rows_of(content: Any) -> list[Row]:
    """Rows of a list of them, of one alone, or of columns. Raises InputError for anything else."""
    if isinstance(content, dict):
        return _of_columns(content) if _is_columns(content) else [content]
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise InputError(f"the request's rows must be objects with the columns {', '.join(COLUMNS)}.")
    return content


def rows_of_table(table: pd.DataFrame) -> list[Row]:
    """Rows of what MLflow hands to a model: it makes one row of a dictionary of columns."""
    rows: list[Row] = table.to_dict("records")
    return _of_columns(rows[0]) if len(rows) == 1 and _is_columns(rows[0]) else rows


def check_rows(rows: list[Row]) -> None:
    """Raises InputError where there are no rows, too many, an unknown column, or a required one is in none of them."""
    if not rows:
        raise InputError("the request holds no rows.")
    if len(rows) > MAX_ROWS:
        raise InputError(f"a request may hold {MAX_ROWS} rows, got {len(rows)}: send several.")
    given = {name: None for row in rows for name in row}
    unknown = [name for name in given if name not in COLUMNS]
    if unknown:
        raise InputError(f"column {bodies.shorten(unknown[0])!r} is not known: choose from {', '.join(COLUMNS)}.")
    missing = [name for name in REQUIRED if name not in given]
    if given.keys().isdisjoint(SHOWN):
        missing.insert(0, SHOWN[0])
    if missing:
        raise InputError(f"the rows lack the column {missing[0]!r}.")


def _is_columns(content: Mapping[str, Any]) -> bool:
    """A row's question is never a list."""
    is_shown = any(isinstance(content.get(name), LIST) for name in SHOWN)
    return is_shown and all(isinstance(content.get(name), LIST) for name in REQUIRED)


def _of_columns(columns: Mapping[str, Any]) -> list[Row]:
    # A column that is absent may be left out, and one that is null as a whole is.
    present = {name: values for name, values in columns.items() if values is not None}
    lengths = {len(values) if isinstance(values, LIST) else None for values in present.values()}
    if len(lengths) != 1 or None in lengths:
        raise InputError("the columns must be lists of one length: send as many values of each as there are rows.")
    return [dict(zip(present, values, strict=True)) for values in zip(*present.values(), strict=True)]


def _of_split(table: _Split) -> list[Row]:
    if len(set(table.columns)) < len(table.columns):
        raise InputError("dataframe_split.columns names a column twice: name each once.")
    for number, values in enumerate(table.data):
        if len(values) != len(table.columns):
            wanted = f"{len(values)} values for {len(table.columns)} columns"
            raise InputError(f"row {number} of dataframe_split.data has {wanted}: give one for each.")
    return [dict(zip(table.columns, values, strict=True)) for values in table.data]


def _sentence(error: ValidationError) -> str:
    first = bodies.first_of(error)
    if first["type"] == "too_long" and first["loc"][-1] in ("dataframe_records", "data"):
        return f"a request may hold {MAX_ROWS} rows, got {first['ctx']['actual_length']}: send several."
    return bodies.sentence(first)
