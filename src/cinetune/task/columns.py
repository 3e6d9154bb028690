"""Rows of a Parquet file as dictionaries, a few thousand at a time, so that a large file takes little memory."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
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


def records(file: pq.ParquetFile, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows of a file with these columns, in its order."""
    for batch in file.iter_batches(BATCH_ROWS, columns=list(names)):
        values = [_values(column) for column in batch.columns]
        for row in zip(*values, strict=True):
            yield dict(zip(batch.schema.names, row, strict=True))


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
