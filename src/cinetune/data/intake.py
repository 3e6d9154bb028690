"""Questions as others keep them, taken in row by row: what can be asked is kept, what cannot is listed with a reason.

From Parquet, CSV and JSON files in CinePile's columns, from the dataset on the Hugging Face hub, and from a plain
list of links (columns `url` and `title`), which gives clips without questions.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from cinetune.cinepile import clip_ids, questions
from cinetune.data import links
from cinetune.data.rows import BATCH_ROWS, LISTS, NUMBERS, SPLITS, rows_of
from cinetune.errors import InputError
from cinetune.files import writing

# What an address may carry beside the place: names and keys, which must not end up in a list of reasons.
MAX_REJECTED_SHOWN = 5
MAX_REASON_CHARS = 300
SECRETS = re.compile(r"(://(?=[^/\s]*@)|[?&](?!v=|list=)[\w.~-]+=)[^&@\s'\"]+")
SCHEMA = pa.schema(
    [
        (name, pa.int64() if name in NUMBERS else pa.list_(pa.string()) if name in LISTS else pa.string())
        for name in (*questions.COLUMNS, "clip_id")
    ]
)


@dataclass(frozen=True)
class ClipRequest:
    """A clip that is asked for; `root` is where a link to a file is looked for, and may not be left."""

    clip_id: str
    link: links.Link
    root: Path | None
    film: str


@dataclass
class Intake:
    """What was taken in: clips by split in the order of the questions, and the rows that were not."""

    clips: dict[str, dict[str, ClipRequest]] = field(default_factory=lambda: {split: {} for split in SPLITS})
    questions: dict[str, Counter[str]] = field(default_factory=lambda: {split: Counter() for split in SPLITS})
    titles: dict[str, str] = field(default_factory=dict)
    rejected: list[dict[str, Any]] = field(default_factory=list)
    num_rows: int = 0

    def first(self, count: int) -> list[ClipRequest]:
        """The first clips of both splits in turn, `count` of them at most, each once; all for 0."""
        turns = zip_longest(*(self.clips[split].values() for split in SPLITS))
        chosen = {clip.clip_id: clip for turn in turns for clip in turn if clip is not None}
        return list(chosen.values())[: count or None]

    def keep(self, clips: Sequence[ClipRequest], folder: Path) -> None:
        """Leave in the questions files below `folder` the rows of these clips: others would count as missing."""
        for split in (split for split, asked in self.questions.items() if asked):
            keep_only(folder / f"{split}.parquet", {clip.clip_id for clip in clips})

    @property
    def complaints(self) -> list[str]:
        """What was rejected: the first rows with their reasons, and how many there were."""
        lines = [f"{rejected['row']}: {rejected['reason']}" for rejected in self.rejected[:MAX_REJECTED_SHOWN]]
        return lines + [f"{len(self.rejected)} of {self.num_rows} rows cannot be used."] * bool(self.rejected)

    def check(self) -> None:
        if len(self.rejected) == self.num_rows:
            raise InputError(f"none of the {self.num_rows} rows can be used: see what is printed above.")


def read(sources: str, revision: str, videos: Path | None, folder: Path) -> Intake:
    """Take in all rows of `sources` (paths separated by |, or v1 or v2), and write <folder>/{train,test}.parquet.

    Raises InputError for a source that cannot be read at all.
    """
    intake = Intake()
    seen: set[int] = set()
    files = {split: folder / f"{split}.parquet" for split in SPLITS}
    for split, name, root, rows in rows_of(sources, revision, videos):
        with writing(files[split]) as file, pyarrow.parquet.ParquetWriter(file, SCHEMA) as writer:
            taken: list[dict[str, Any]] = []
            for number, row in enumerate(rows):
                intake.num_rows += 1
                kept = _take(intake, split, row, f"{name}, row {number}", root, seen)
                taken += [kept] if kept else []
                if len(taken) == BATCH_ROWS:
                    writer.write_table(pa.Table.from_pylist(taken, SCHEMA))
                    taken = []
            writer.write_table(pa.Table.from_pylist(taken, SCHEMA))
        if not intake.questions[split]:
            files[split].unlink()
    _name_films(intake)
    return intake


def keep_only(path: Path, kept: set[str]) -> None:
    """Leave in a questions file the rows of these clips."""
    with (
        pyarrow.parquet.ParquetFile(path) as whole,
        writing(path) as file,
        pyarrow.parquet.ParquetWriter(file, SCHEMA) as writer,
    ):
        for batch in whole.iter_batches(BATCH_ROWS):
            mask = [clip_id in kept for clip_id in batch.column("clip_id").to_pylist()]
            writer.write_batch(batch.filter(pa.array(mask)))


def _name_films(intake: Intake) -> None:
    """Tell the films of clips that came with a title and without questions by all titles together."""
    named = dict(zip(intake.titles, links.films_of(list(intake.titles.values())), strict=True))
    for split, clips in intake.clips.items():
        for clip_id, clip in clips.items():
            if clip_id in named and not intake.questions[split][clip_id]:
                clips[clip_id] = replace(clip, film=named[clip_id])


def _take(
    intake: Intake, split: str, row: Mapping[str, Any] | str, place: str, root: Path | None, seen: set[int]
) -> dict[str, Any] | None:
    """The row in our columns; None where it holds no question. What cannot be used is added to the rejected."""
    try:
        if isinstance(row, str):
            raise InputError(row)
        is_question = "question" in row
        link, clip_id = _link(row["yt_clip_link" if is_question else "url"], row, root)
        kept = _question(row, clip_id) if is_question else None
        wanted = ClipRequest(clip_id, link, root if link.kind == "file" else None, _film(kept, row))
        before = intake.clips[split].get(clip_id, wanted)
        if before != wanted:
            what = f"under {before.link.url!r} as of {before.film!r}"
            raise InputError(f"clip {clip_id!r} was named before {what}, now {link.url!r}, {wanted.film!r}")
        if kept is not None:
            key = hash((split, clip_id, kept["question"], tuple(kept["choices"])))
            if key in seen:
                raise InputError(f"question {kept['question']!r} of clip {clip_id!r} was there before")
            seen.add(key)
            intake.questions[split][clip_id] += 1
        else:
            intake.titles[clip_id] = row["title"]
        intake.clips[split][clip_id] = wanted
        return kept
    except InputError as error:
        reason = " ".join(SECRETS.sub(r"\1...", str(error)).encode("utf-8", "backslashreplace").decode().split())
        shown = reason if len(reason) <= MAX_REASON_CHARS else f"{reason[: MAX_REASON_CHARS - 3]}..."
        intake.rejected.append({"row": place, "reason": shown})
        return None


def _link(address: object, row: Mapping[str, Any], root: Path | None) -> tuple[links.Link, str]:
    link = links.read_link(address)
    given = row.get("clip_id") or row.get("videoID")
    clip_id = given if given and link.kind != "youtube" else link.clip_id
    reason = clip_ids.check(clip_id)
    if reason:
        raise InputError(reason)
    if link.kind == "file" and root is None:
        raise InputError(f"link {link.url!r} is a file, and questions from the hub may name none")
    return link, clip_id


def _film(kept: Mapping[str, Any] | None, row: Mapping[str, Any]) -> str:
    if kept is not None:
        return f"{kept['movie_name']} ({kept['year']})"
    reason = questions.check_text("title", row["title"])
    if reason:
        raise InputError(reason)
    _check_encodable("title", row["title"])
    return str(links.film_of(row["title"]))


def _question(row: Mapping[str, Any], clip_id: str) -> dict[str, Any]:
    reason = questions.check_row({**row, "clip_id": clip_id})
    if reason:
        raise InputError(reason)
    kept = {name: row[name] for name in questions.COLUMNS} | {"clip_id": clip_id}
    kept |= {name: int(row[name]) for name in NUMBERS}
    kept |= {name: str(row[name]) for name in ("hard_split", "visual_reliance")}
    kept |= {name: "" if row[name] is None else row[name] for name in ("yt_clip_title", "movie_scene")}
    kept["genre"] = [] if row["genre"] is None else row["genre"]
    if not isinstance(kept["genre"], list):
        raise InputError(f"genre must be a list of texts, got {kept['genre']!r}")
    for name, value in kept.items():
        for text in value if isinstance(value, list) else [value]:
            if name not in NUMBERS:
                _check_encodable(name, text)
    return kept


def _check_encodable(name: str, text: object) -> None:
    if not isinstance(text, str):
        raise InputError(f"{name} must be text, got {text!r}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(f"{name} is not UTF-8") from None
