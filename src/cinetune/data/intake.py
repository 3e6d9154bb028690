"""Questions as others keep them, taken in row by row: what can be asked is kept, what cannot is listed with a reason.

From Parquet, CSV and JSON files in CinePile's columns, from the dataset on the Hugging Face hub, and from a plain
list of links (columns `url` and `title`), which gives clips without questions.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet

from cinetune.data import links
from cinetune.data.sources.formats import BATCH_ROWS, LISTS, NUMBERS, Row
from cinetune.data.sources.rows import SPLITS, rows_of
from cinetune.errors import InputError
from cinetune.files import writing
from cinetune.task import checks, clip_ids
from cinetune.task.description import CINEPILE
from cinetune.task.groups import group_key

# What an address may carry beside the place: names and keys, which must not end up in a list of reasons.
MAX_REJECTED_SHOWN = 5
MAX_REASON_CHARS = 300
SECRETS = re.compile(r"(://(?=[^/\s]*@)|[?&](?!v=|list=)[\w.~-]+=)[^&@\s'\"]+")
# CinePile's category names hold a line break, which other programs write as CRLF, a blank or its escape.
CATEGORIES = {" ".join(name.split()).casefold(): name for name in CINEPILE.shorts}
BREAKS = re.compile(r"(?:\s|\\r|\\n|_x000D_)+")
SCHEMA = pa.schema(
    [
        (name, pa.int64() if name in NUMBERS else pa.list_(pa.string()) if name in LISTS else pa.string())
        for name in CINEPILE.columns.values()
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

    @property
    def complaints(self) -> list[str]:
        """What was rejected: the first rows with their reasons, and how many there were."""
        lines = [f"{rejected['row']}: {rejected['reason']}" for rejected in self.rejected[:MAX_REJECTED_SHOWN]]
        return lines + [f"{len(self.rejected)} of {self.num_rows} rows cannot be used."] * bool(self.rejected)

    def check(self) -> None:
        if len(self.rejected) == self.num_rows:
            raise InputError(f"none of the {self.num_rows} rows can be used: see what is printed above.")


class _Vote(NamedTuple):
    """What a row says of its clip."""

    clip_id: str
    link: links.Link
    film_key: str


@dataclass
class _Poll:
    """One split while it is read: row numbers by what they say of their clip, and why rows were refused."""

    root: Path | None
    rows: dict[_Vote, list[int]] = field(default_factory=dict)
    # Ways to write the film; titles where there are no questions.
    films: dict[_Vote, Counter[str]] = field(default_factory=dict)
    titles: dict[_Vote, str] = field(default_factory=dict)
    asked: Counter[_Vote] = field(default_factory=Counter)
    kept: array[int] = field(default_factory=lambda: array("q"))
    refused: dict[int, str] = field(default_factory=dict)
    seen: set[int] = field(default_factory=set)

    def count(self, number: int, vote: _Vote, film: str) -> None:
        self.rows.setdefault(vote, []).append(number)
        self.films.setdefault(vote, Counter())[film] += 1

    def elect(self) -> list[_Vote]:
        """What most rows of each clip say, the first of equals; rows that say something else are refused."""
        by_clip: dict[str, list[_Vote]] = {}
        for vote in self.rows:
            by_clip.setdefault(vote.clip_id, []).append(vote)
        elected = []
        for votes in by_clip.values():
            best = max(votes, key=lambda vote: len(self.rows[vote]))
            elected.append(best)
            for vote in (vote for vote in votes if vote != best):
                said = (
                    f"clip {best.clip_id!r} is {best.link.url!r} of {self.film(best)!r} in {len(self.rows[best])} rows"
                )
                reason = f"{said}, here {vote.link.url!r} of {self.film(vote)!r}"
                self.refused |= dict.fromkeys(self.rows[vote], reason)
        return elected

    def film(self, vote: _Vote) -> str:
        """Its most common spelling."""
        return self.films[vote].most_common(1)[0][0]


def read(sources: str, revision: str, videos: Path | None, folder: Path) -> Intake:
    """Take in all rows of `sources` (paths separated by |, or v1 or v2), and write <folder>/{train,test}.parquet.

    A split without questions has no file. Raises InputError for a source that cannot be read at all.
    """
    intake = Intake()
    for split, name, root, rows in rows_of(sources, revision, videos):
        poll = _Poll(root)
        path = folder / f"{split}.parquet"
        intake.num_rows += _write(path, rows, poll)
        for vote in poll.elect():
            intake.clips[split][vote.clip_id] = ClipRequest(
                vote.clip_id, vote.link, root if vote.link.kind == "file" else None, poll.film(vote)
            )
            if vote in poll.asked:
                intake.questions[split][vote.clip_id] = poll.asked[vote]
            if vote in poll.titles:
                intake.titles[vote.clip_id] = poll.titles[vote]
        for number, reason in sorted(poll.refused.items()):
            intake.rejected.append({"row": f"{name}, row {number}", "reason": _shown(reason)})
        if not intake.questions[split]:
            path.unlink()
        elif poll.refused.keys() & set(poll.kept):
            keep_only(path, [number not in poll.refused for number in poll.kept])
    _name_films(intake)
    return intake


def _write(path: Path, rows: Iterable[Row], poll: _Poll) -> int:
    """Write the questions that can be asked into a Parquet file; the number of all rows."""
    num_rows = 0
    with writing(path) as file, pyarrow.parquet.ParquetWriter(file, SCHEMA) as writer:
        taken: list[dict[str, Any]] = []
        for num_rows, row in enumerate(rows, 1):
            try:
                question = _take(row, num_rows - 1, poll)
            except InputError as error:
                poll.refused[num_rows - 1] = str(error)
                continue
            if question is not None:
                poll.kept.append(num_rows - 1)
                taken.append(question)
            if len(taken) == BATCH_ROWS:
                writer.write_table(pa.Table.from_pylist(taken, SCHEMA))
                taken = []
        writer.write_table(pa.Table.from_pylist(taken, SCHEMA))
    return num_rows


def keep_only(path: Path, mask: Sequence[bool]) -> None:
    """Leave in a questions file the rows for which the mask is true."""
    place = 0
    with (
        pyarrow.parquet.ParquetFile(path) as whole,
        writing(path) as file,
        pyarrow.parquet.ParquetWriter(file, SCHEMA) as writer,
    ):
        for batch in whole.iter_batches(BATCH_ROWS):
            writer.write_batch(batch.filter(pa.array(mask[place : place + batch.num_rows], pa.bool_())))
            place += batch.num_rows


def _name_films(intake: Intake) -> None:
    """Tell the films of clips that came with a title and without questions by all titles together."""
    named = dict(zip(intake.titles, links.films_of(list(intake.titles.values())), strict=True))
    for split, clips in intake.clips.items():
        for clip_id, clip in clips.items():
            if clip_id in named and not intake.questions[split][clip_id]:
                clips[clip_id] = replace(clip, film=named[clip_id])


def _take(row: Row, number: int, poll: _Poll) -> dict[str, Any] | None:
    """The row in our columns; None where it holds no question. Raises InputError for what cannot be used."""
    if isinstance(row, str):
        raise InputError(row)
    is_question = "question" in row
    link, clip_id = _link(row["yt_clip_link" if is_question else "url"], row, poll.root)
    kept = _question(row, clip_id) if is_question else None
    film = _film(kept, row)
    vote = _Vote(clip_id, link, group_key(film))
    if kept is None:
        poll.titles.setdefault(vote, row["title"])
    else:
        key = hash((vote, kept["question"], tuple(kept["choices"])))
        if key in poll.seen:
            raise InputError(f"question {kept['question']!r} of clip {clip_id!r} was there before")
        poll.seen.add(key)
        poll.asked[vote] += 1
    poll.count(number, vote, film)
    return kept


def _shown(reason: str) -> str:
    """A reason in one line, without keys and passwords."""
    line = " ".join(SECRETS.sub(r"\1...", reason).encode("utf-8", "backslashreplace").decode().split())
    return line if len(line) <= MAX_REASON_CHARS else f"{line[: MAX_REASON_CHARS - 3]}..."


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
    reason = checks.check_text("title", row["title"])
    if reason:
        raise InputError(reason)
    _check_encodable("title", row["title"])
    return str(links.film_of(row["title"]))


def _question(row: Mapping[str, Any], clip_id: str) -> dict[str, Any]:
    row = {**row, "question_category": _category(row["question_category"])}
    reason = checks.check_row(checks.named({**row, "clip_id": clip_id}, CINEPILE))
    if reason:
        raise InputError(reason)
    kept = {name: clip_id if name == "clip_id" else row[name] for name in CINEPILE.columns.values()}
    kept |= {name: int(row[name]) for name in NUMBERS}
    kept |= {"hard_split": _switch(row["hard_split"]), "visual_reliance": _switch(row["visual_reliance"])}
    kept |= {name: "" if row[name] is None else row[name] for name in ("yt_clip_title", "movie_scene")}
    kept["genre"] = [] if row["genre"] is None else row["genre"]
    if not isinstance(kept["genre"], list):
        raise InputError(f"genre must be a list of texts, got {kept['genre']!r}")
    for name, value in kept.items():
        for text in value if isinstance(value, list) else [value]:
            if name not in NUMBERS:
                _check_encodable(name, text)
    return kept


def _category(name: object) -> object:
    """CinePile's name of a category, whatever its line break was written as."""
    return CATEGORIES.get(BREAKS.sub(" ", name).strip().casefold(), name) if isinstance(name, str) else name


def _switch(value: object) -> str:
    """CinePile's "True", "False", "0" or "1", where Excel writes TRUE and pandas 1.0; anything else as it is."""
    text = str(value)
    return text.capitalize() if text.lower() in ("true", "false") else text.removesuffix(".0")


def _check_encodable(name: str, text: object) -> None:
    if not isinstance(text, str):
        raise InputError(f"{name} must be text, got {text!r}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(f"{name} is not UTF-8") from None
