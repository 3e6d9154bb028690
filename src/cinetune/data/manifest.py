"""clips.parquet and its journal: what was recorded stays, whenever the process or the machine stops."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from cinetune.errors import InputError
from cinetune.files import writing

SCHEMA = pa.schema(
    [
        ("clip_id", pa.string()),
        ("url", pa.string()),
        ("film", pa.string()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("attempts", pa.int64()),
        ("duration_s", pa.float64()),
        ("settled", pa.bool_()),
    ]
)


@dataclass(frozen=True)
class ClipRecord:
    """A row of clips.parquet; attempts count all runs, files that were there already count as one.

    settled: whether the next run leaves it as it is.
    """

    clip_id: str
    url: str
    film: str
    status: str
    reason: str
    attempts: int
    duration_s: float | None
    settled: bool = False


class Manifest:
    """clips.parquet and its journal: what was recorded stays, whenever the process or the machine stops."""

    def __init__(self, folder: Path) -> None:
        self._path, self._journal_path = folder / "clips.parquet", folder / "clips.journal"
        self.records: dict[str, ClipRecord] = {}
        if self._path.is_file():
            try:
                table = pyarrow.parquet.read_table(self._path, schema=SCHEMA)
            except (pa.ArrowException, OSError):
                raise InputError(
                    f"{str(self._path)!r} is damaged: remove it, and the clips are looked at again."
                ) from None
            # An earlier version did not say what is settled: it is asked for once more.
            self.records = {
                row["clip_id"]: ClipRecord(**row | {"settled": bool(row["settled"])}) for row in table.to_pylist()
            }
        self._journal = self._journal_path.open("a+b")
        self._replay()

    def _replay(self) -> None:
        self._journal.seek(0)
        content = self._journal.read()
        # A line without its end was being written when the process died.
        whole = content[: content.rfind(b"\n") + 1]
        self._journal.truncate(len(whole))
        for line in whole.splitlines():
            record = ClipRecord(**json.loads(line))
            self.records[record.clip_id] = record

    def record(self, record: ClipRecord) -> None:
        """Add or replace a row; it is on the disk when this returns."""
        self.records[record.clip_id] = record
        self._journal.write(json.dumps(asdict(record)).encode() + b"\n")
        self._journal.flush()
        os.fsync(self._journal.fileno())

    def save(self) -> None:
        """Everything into clips.parquet, by clip id, so that the order of events leaves no trace."""
        rows = [asdict(self.records[clip_id]) for clip_id in sorted(self.records)]
        with writing(self._path) as file:
            pyarrow.parquet.write_table(pa.Table.from_pylist(rows, SCHEMA), file)
        self._journal.close()
        self._journal_path.unlink()
