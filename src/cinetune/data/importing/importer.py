"""A data folder out of question files and a folder of videos.

<out>/questions/{train,test}.parquet   what is asked, in the plain columns; validation.parquet where rows say so
<out>/clips/<clip_id>.mp4              hard links or copies, and parts that were cut; <clip_id>/ for images
<out>/task.yaml, card.json             what the task is, and what the folder says of itself
<out>/import.json, rejected.jsonl      what was found, and each row that was not taken with its reason
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from cinetune.data.importing import records, sources, splits, summary
from cinetune.data.importing.clips import Clips, Fetch, Placed
from cinetune.data.importing.cuts import Cutter
from cinetune.data.importing.library import Library
from cinetune.data.importing.records import Record
from cinetune.errors import InputError
from cinetune.files import whole_folder, write_json
from cinetune.params import ImportParams
from cinetune.task import data_card, description
from cinetune.task.data_card import DataCard
from cinetune.task.description import Task
from cinetune.task.groups import group_key

REPORT, REJECTED = "import.json", "rejected.jsonl"
# With more of them tables by category say nothing.
MAX_CATEGORIES = 20
UNCATEGORISED = "uncategorised"
MAX_REASON_CHARS, MAX_SHORT_CHARS = 300, 30
SCHEMA = pa.schema(
    [
        ("clip_id", pa.string()),
        ("question", pa.string()),
        ("choices", pa.list_(pa.string())),
        ("answer", pa.int64()),
        ("answer_text", pa.string()),
        ("category", pa.string()),
        ("group", pa.string()),
        ("subtitles", pa.string()),
        ("url", pa.string()),
    ]
)


@dataclass(frozen=True)
class Imported:
    """What was made: figures, sentences about them, and the rows that were not taken with their reasons."""

    folder: Path
    found: Mapping[str, Any]
    lines: Sequence[str]
    rejected: Sequence[Mapping[str, str]]


def run(params: ImportParams, fetch: Fetch, timeout_s: float, images_per_s: float) -> Imported:
    """Fill <params.out> anew, whole or not at all.

    timeout_s: for cutting one part; images_per_s: of numbered images. Raises InputError for wrong params, files that
    cannot be read, and where no row can be used.
    """
    target = claim(params)
    rows = Rows()
    taken = rows.read(params)
    with whole_folder(target) as folder, Cutter(timeout_s) as cutter:
        library = Library(sources.videos_folder(params.videos, params.questions))
        clips = Clips(library, folder / "clips", cutter, images_per_s)
        placed = list(clips.place(taken, fetch, rows.reject))
        kept = judge(placed, rows)
        by_split = divide(kept, params, rows)
        if not any(by_split.values()):
            raise InputError(f"none of the {rows.count} rows can be used: {rows.rejected()[0]['reason']}.")
        clips.keep({item.clip_id for item in kept})
        task = task_of(kept, params)
        tables = {split: table(items, task) for split, items in by_split.items() if items}
        found = summary.measure(tables, rows.rejected(), rows.count, clips.num_others())
        _write(folder, tables, task, name_of(params), found, rows, clips)
    return Imported(target, found, summary.sentences(found, task.groups), rows.rejected())


def claim(params: ImportParams) -> Path:
    """The folder to fill: none yet, an empty one, or one that was imported before."""
    if not params.out:
        raise InputError("import.out is empty: pass -P out=<folder to fill>.")
    folder = Path(params.out)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"import.out {params.out!r} is not a folder: name another.")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / REPORT).is_file():
        raise InputError(f"import.out {params.out!r} holds what import has not put there: name another folder.")
    return folder


def name_of(params: ImportParams) -> str:
    """What reports and runs call it."""
    return params.name or Path(params.out).resolve().name


class Rows:
    """The rows of all sources by number, and why some were rejected."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._reasons: dict[int, str] = {}

    @property
    def count(self) -> int:
        """How many there are, rejected ones too."""
        return len(self._names)

    def read(self, params: ImportParams) -> list[Record]:
        """Those that can be asked, by themselves. Raises InputError for files that cannot be read."""
        taken = []
        for row in sources.read(params.questions, params.layout):
            number = len(self._names)
            self._names.append(row.name)
            try:
                if isinstance(row.content, str):
                    raise InputError(row.content)
                taken.append(records.read(row.content, number, row.split))
            except InputError as error:
                self.reject(number, str(error))
        return taken

    def reject(self, number: int, reason: str) -> None:
        """The first reason stays."""
        line = " ".join(reason.encode("utf-8", "backslashreplace").decode().split()).removesuffix(".")
        shown = line if len(line) <= MAX_REASON_CHARS else f"{line[: MAX_REASON_CHARS - 1]}…"
        self._reasons.setdefault(number, shown)

    def rejected(self) -> list[dict[str, str]]:
        """In the order of the sources."""
        return [{"row": self._names[number], "reason": reason} for number, reason in sorted(self._reasons.items())]


def judge(placed: Sequence[Placed], rows: Rows) -> list[Placed]:
    """Those that fit the others: each video in one group, each question of a clip once."""
    groups = splits.groups_of_videos((item.video.name, item.record.group) for item in placed)
    seen: set[tuple[str, str, tuple[str, ...]]] = set()
    kept = []
    for item in placed:
        record, group = item.record, groups[item.video.name]
        key = (item.clip_id, record.question, record.choices)
        if record.group and group_key(record.group) != group_key(group):
            told = f"video {record.video!r} is of the group {group!r} in most rows, here of {record.group!r}"
            rows.reject(record.number, told)
        elif key in seen:
            rows.reject(record.number, f"question {record.question!r} of video {record.video!r} was there before")
        else:
            seen.add(key)
            kept.append(item._replace(record=record._replace(group=group)))
    return kept


def divide(placed: Sequence[Placed], params: ImportParams, rows: Rows) -> dict[str, list[Placed]]:
    """By split: as the rows say, or drawn by group where none is said to be of the test."""
    of_group = splits.given((item.record.group, item.record.split) for item in placed)
    drawn: set[str] = set()
    if "test" not in of_group.values():
        free = (key for item in placed if of_group.get(key := group_key(item.record.group)) != "validation")
        has_validation = "validation" in of_group.values()
        drawn = splits.draw(Counter(free), params.test_fraction, params.seed, has_validation)
    divided: dict[str, list[Placed]] = {split: [] for split in sources.SPLITS}
    for item in placed:
        record = item.record
        key = group_key(record.group)
        split = of_group.get(key, "train")
        if record.split and record.split != split:
            told = f"group {record.group!r} is in the {split} questions too, here in those for {record.split}"
            rows.reject(record.number, told)
        else:
            divided["test" if key in drawn else split].append(item)
    return divided


def task_of(placed: Sequence[Placed], params: ImportParams) -> Task:
    """The description of what was found."""
    counts = {len(item.record.choices) for item in placed if item.record.choices}
    spelled: dict[str, str] = {}
    for item in placed:
        spelled.setdefault(_folded(item.record.category), " ".join(item.record.category.split()))
    named = {folded: name or UNCATEGORISED for folded, name in spelled.items()}
    categories = {} if set(named) <= {""} or len(named) > MAX_CATEGORIES else _shorts(sorted(named.values()))
    has_groups = any(item.record.group != item.video.name for item in placed)
    return Task(
        name=name_of(params),
        group=params.group or ("group" if has_groups else "video"),
        min_choices=min(counts, default=description.MIN_CHOICES),
        max_choices=max(counts, default=description.MAX_CHOICES),
        categories=categories,
        open_questions=any(not item.record.choices for item in placed),
        subtitles=any(item.record.subtitles for item in placed),
        licence=params.licence,
    )


def _folded(category: str) -> str:
    return " ".join(category.split()).casefold()


def _shorts(names: Sequence[str]) -> dict[str, str]:
    """Names by short ones that metrics can carry."""
    found: dict[str, str] = {}
    for number, name in enumerate(names, 1):
        short = re.sub(r"[^a-z0-9]+", "_", name.casefold()).strip("_")[:MAX_SHORT_CHARS] or f"category_{number}"
        found[short if short not in found else f"{short[: MAX_SHORT_CHARS - 3]}_{number}"] = name
    return found


def table(placed: Sequence[Placed], task: Task) -> list[dict[str, Any]]:
    """Rows in the plain columns; a clip has the subtitles that its first row with any has."""
    spelled = {_folded(name): name for name in task.categories.values()}
    said: dict[str, str] = {}
    for item in placed:
        said[item.clip_id] = said.get(item.clip_id) or item.record.subtitles
    return [
        {
            "clip_id": item.clip_id,
            "question": item.record.question,
            "choices": list(item.record.choices) or None,
            "answer": item.record.answer if item.record.choices else None,
            "answer_text": item.record.choices[item.record.answer] if item.record.choices else item.record.words,
            "category": spelled.get(_folded(item.record.category) or UNCATEGORISED, item.record.category),
            "group": item.record.group,
            "subtitles": said[item.clip_id],
            "url": item.record.video,
        }
        for item in placed
    ]


def _write(
    folder: Path,
    tables: Mapping[str, Sequence[Mapping[str, Any]]],
    task: Task,
    name: str,
    found: Mapping[str, Any],
    rows: Rows,
    clips: Clips,
) -> None:
    (folder / "questions").mkdir()
    for split, content in tables.items():
        pyarrow.parquet.write_table(
            pa.Table.from_pylist(list(content), SCHEMA), folder / "questions" / f"{split}.parquet"
        )
    clips.write_manifest(folder, {row["clip_id"]: row["group"] for content in tables.values() for row in content})
    description.write(folder, task)
    licence = task.licence or data_card.UNKNOWN_LICENCE
    counts = {split: len(content) for split, content in tables.items()}
    write_json(folder / data_card.CARD, asdict(DataCard(name=name, licence=licence, rows=counts)))
    write_json(folder / REPORT, found)
    lines = [json.dumps(row, ensure_ascii=False) for row in rows.rejected()]
    (folder / REJECTED).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
