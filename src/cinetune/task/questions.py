"""Rows of questions: checks, grouping by clip, and a split that keeps groups (films, cameras, ...) whole."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cinetune.errors import InputError, reason_of
from cinetune.files import text_digest
from cinetune.task import columns, description
from cinetune.task.checks import check_row, is_open, named
from cinetune.task.description import CINEPILE, MAPPED, Task
from cinetune.task.groups import group_key, name_of, spellings

# Kept in the files: questions were written from the one, and links are shown instead of the other.
NEVER_READ = ("scene", "title")
TRAINING, VALIDATION = "train", "validation"


@dataclass(frozen=True, slots=True)
class Question:
    """One question with its options; an open one has none, -1 as its answer, and is answered in `words`."""

    question_id: str
    text: str
    choices: tuple[str, ...]
    answer: int
    category: str = ""
    hard_split: str = ""
    visual_reliance: str = ""
    words: str = ""

    @property
    def is_open(self) -> bool:
        return not self.choices

    @property
    def options(self) -> tuple[str, ...] | None:
        """What it is asked with; None for an open question."""
        return self.choices or None

    @property
    def answer_text(self) -> str:
        """The right answer in words."""
        return self.choices[self.answer] if self.choices else self.words

    @property
    def digest(self) -> str:
        """16 hexadecimal digits of its text, its options in the data's order and the right one."""
        return text_digest(json.dumps([self.text, self.choices, self.answer] + [self.words] * self.is_open))[:16]

    def reordered(self, order: Sequence[int]) -> Question:
        """The same question with its options in another order: `order[k]` is the option that comes to place k."""
        if self.is_open:
            return self
        choices = tuple(self.choices[i] for i in order)
        return replace(self, choices=choices, answer=list(order).index(self.answer))


@dataclass(frozen=True)
class ClipQuestions:
    """A clip with its questions: the unit of work everywhere. `group`: what is never split, a film or the like."""

    clip_id: str
    group: str
    subtitles: str
    questions: tuple[Question, ...]
    year: int | None = None
    genres: tuple[str, ...] = ()
    url: str = ""


def file_of(root: str | Path, split: str) -> Path:
    """Where a split's questions are. Raises InputError where they are missing."""
    path = Path(root) / "questions" / f"{split}.parquet"
    if not path.is_file():
        raise InputError(
            f"{path} does not exist: run `dvc pull data.dvc` (or `python -m cinetune mini`) for CinePile-mini, or "
            "download and set data.root."
        )
    return path


def load(root: str | Path, split: str) -> list[ClipQuestions]:
    """The clips of `<root>/questions/<split>.parquet` with their questions, in the file's order.

    Raises InputError for a missing file, a missing column or the first row that cannot be used.
    """
    path, task = file_of(root, split), description.of_folder(root)
    with _reading(path, task) as file, columns.without_garbage_collection():
        names = {name: task.names.get(name) for name in MAPPED if name not in NEVER_READ}
        return _grouped(columns.records(file, names), str(path), task)


def training_splits(root: str | Path) -> tuple[str, ...]:
    """The splits that a training reads: a folder may say itself which questions it is validated on."""
    is_given = (Path(root) / "questions" / f"{VALIDATION}.parquet").is_file()
    return (TRAINING, VALIDATION) if is_given else (TRAINING,)


def load_validation(root: str | Path) -> list[ClipQuestions]:
    """The clips that a training is to be validated on; none where its own are divided for that."""
    return load(root, VALIDATION) if VALIDATION in training_splits(root) else []


def clip_ids_of(root: str | Path, split: str) -> list[str]:
    """The clips of `<root>/questions/<split>.parquet` in the file's order; nothing else of it is read or checked."""
    task = description.of_folder(root)
    with _reading(file_of(root, split), task) as file:
        return list(dict.fromkeys(row["clip_id"] for row in columns.records(file, {"clip_id": task.names["clip_id"]})))


@contextmanager
def _reading(path: Path, task: Task) -> Iterator[pq.ParquetFile]:
    try:
        file = pq.ParquetFile(path)
        _check_columns(file.schema_arrow.names, file.metadata.num_rows, str(path), task)
        yield file
    except (OSError, pa.ArrowException) as error:
        raise InputError(
            f"{path} is not a Parquet file ({reason_of(error)}): run `dvc pull --force data.dvc`."
        ) from None


def clips_of(table: pd.DataFrame, origin: str, task: Task = CINEPILE) -> list[ClipQuestions]:
    """Rows in the columns of a task, grouped by clip; `origin` names them in errors."""
    _check_columns(table.columns, len(table), origin, task)
    return _grouped((named(row, task) for row in table.to_dict("records")), origin, task)


def _check_columns(names: Collection[str], num_rows: int, origin: str, task: Task) -> None:
    needed = [task.column(name) for name in MAPPED if task.needs(name)]
    missing = [name for name in needed if name not in names]
    if missing:
        raise InputError(f"{origin} lacks the column {missing[0]!r}: {', '.join(needed)} are needed.")
    if not num_rows:
        raise InputError(f"{origin} has no rows: nothing can be trained or evaluated on it.")


def _grouped(rows: Iterable[Mapping[str, Any]], origin: str, task: Task) -> list[ClipQuestions]:
    groups: dict[str, str] = {}
    subtitles: dict[str, str] = {}
    about: dict[str, dict[str, Any]] = {}
    questions: dict[str, list[Question]] = {}
    for number, row in enumerate(rows):
        reason = check_row(row, task)
        if reason:
            # A list's text may come in several lines.
            reason = " ".join(reason.split())
            raise InputError(f"{origin}, row {number}: {reason}; remove or repair the row.")
        clip_id = row["clip_id"]
        of_clip = questions.setdefault(clip_id, [])
        group = name_of(row, task)
        if group_key(groups.setdefault(clip_id, group)) != group_key(group):
            # It would stand on both sides of a split that keeps groups apart.
            raise InputError(
                f"{origin}, row {number}: clip {clip_id!r} is of {group!r}, before it was of {groups[clip_id]!r}."
            )
        said = row["subtitles"]
        subtitles.setdefault(clip_id, said if isinstance(said, str) else "")
        if not of_clip:
            about[clip_id] = _about(row)
        of_clip.append(_question(f"{clip_id}-{len(of_clip):03d}", row, task))
    # One spelling of a group stands for all, so that results by group count it once.
    spelling = spellings(groups.values())
    return [
        ClipQuestions(
            clip_id, spelling[group_key(groups[clip_id])], subtitles[clip_id], tuple(of_clip), **about[clip_id]
        )
        for clip_id, of_clip in questions.items()
    ]


def _question(question_id: str, row: Mapping[str, Any], task: Task) -> Question:
    choices = row["choices"]
    has_none = is_open(choices, task)
    slices = {name: str(row[name]) for name in ("hard_split", "visual_reliance") if name in task.names}
    return Question(
        question_id=question_id,
        text=row["question"],
        choices=() if has_none else tuple(choices),
        answer=-1 if has_none else int(row["answer"]),
        category=row["category"] if task.categories else "",
        words=row["answer_text"] if has_none else "",
        **slices,
    )


def _about(row: Mapping[str, Any]) -> dict[str, Any]:
    """What results are broken down by and linked to; whatever is not as it should be is left out."""
    genre, year, url = (row[name] for name in ("genres", "year", "url"))
    genres = [genre] if isinstance(genre, str) else genre if isinstance(genre, Sequence | np.ndarray) else []
    return {
        "year": None if year is None else int(year),
        "genres": tuple(name for name in genres if isinstance(name, str) and name.strip()),
        "url": url if isinstance(url, str) else "",
    }
