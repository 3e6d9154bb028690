"""Rows of a Parquet file as dictionaries, a few thousand at a time, so that a large file takes little memory."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

BATCH_ROWS = 8192


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Objects by the million, all kept: looking for cycles among them takes as long as making them."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def records(file: pq.ParquetFile, names: Mapping[str, str | None]) -> Iterator[dict[str, Any]]:
    """The rows of a file in its order; names: of its columns by the keys of the rows, which are None for no column."""
    there = [name for name in file.schema_arrow.names if name in names.values()]
    for batch in file.iter_batches(BATCH_ROWS, columns=there):
        held: dict[str | None, list[Any]] = {name: _values(batch.column(name)) for name in there}
        nothing = [None] * batch.num_rows
        for row in zip(*(held.get(column, nothing) for column in names.values()), strict=True):
            yield dict(zip(names, row, strict=True))


def _values(column: pa.Array) -> list[Any]:
    """As `to_pylist`, but several times faster for texts and lists of them."""
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return list(column.to_numpy(zero_copy_only=False))
    if pa.types.is_list(kind) and pa.types.is_string(kind.value_type) and not column.null_count:
        items, offsets = _values(column.flatten()), column.offsets.to_pylist()
        first = offsets[0]
        return [items[start - first : end - first] for start, end in pairwise(offsets)]
    return list(column.to_pylist())
