"""Questions as others keep them, taken in row by row: what can be asked goes on, what cannot is listed with a reason.

From Parquet, CSV and JSON files in CinePile's columns, from the dataset on the Hugging Face hub, and from a plain
list of links (columns `url` and `title`), which gives clips without questions.
"""

from __future__ import annotations

import ast
import csv
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from cinetune import links, questions
from cinetune.errors import InputError

HUB = "tomg-group-umd/cinepile"
VERSIONS = ("v1", "v2")
SPLITS = ("train", "test")
BATCH_ROWS = 1000
MOST_REASON_CHARS = 300
# What an address may carry beside the place: names and keys, which must not end up in a list of reasons.
SECRETS = re.compile(r"(://(?=[^/\s]*@)|[?&](?!v=|list=)[\w.~-]+=)[^&@\s'\"]+")
NUMBERS = ("year", "answer_key_position")
LISTS = ("genre", "choices")
SCHEMA = pa.schema(
    [
        (name, pa.int64() if name in NUMBERS else pa.list_(pa.string()) if name in LISTS else pa.string())
        for name in (*questions.COLUMNS, "clip_id")
    ]
)


@dataclass(frozen=True)
class Wanted:
    """A clip that is asked for; `root` is where a link to a file is looked for, and may not be left."""

    clip_id: str
    link: links.Link
    root: Path | None
    film: str


@dataclass
class Intake:
    """What was taken in: clips by split in the order of the questions, and the rows that were not."""

    clips: dict[str, dict[str, Wanted]] = field(default_factory=lambda: {split: {} for split in SPLITS})
    questions: dict[str, Counter[str]] = field(default_factory=lambda: {split: Counter() for split in SPLITS})
    rejected: list[dict[str, Any]] = field(default_factory=list)
    num_rows: int = 0

    def first(self, count: int) -> list[Wanted]:
        """The first clips of both splits in turn, `count` of them at most, each once; all for 0."""
        turns = zip_longest(*(self.clips[split].values() for split in SPLITS))
        chosen = {clip.clip_id: clip for turn in turns for clip in turn if clip is not None}
        return list(chosen.values())[: count or None]


def read(sources: str, revision: str, videos: Path | None, folder: Path) -> Intake:
    """Take in all rows of `sources` (paths separated by |, or v1 or v2), and write <folder>/{train,test}.parquet.

    Raises InputError for a source that cannot be read at all.
    """
    intake = Intake()
    seen: set[int] = set()
    files = {split: folder / f"{split}.parquet" for split in SPLITS}
    for split, name, root, rows in _sources(sources, revision, videos):
        unfinished = files[split].with_suffix(".unfinished")
        with pyarrow.parquet.ParquetWriter(unfinished, SCHEMA) as writer:
            taken: list[dict[str, Any]] = []
            for number, row in enumerate(rows):
                intake.num_rows += 1
                kept = _take(intake, split, row, f"{name}, row {number}", root, seen)
                taken += [kept] if kept else []
                if len(taken) == BATCH_ROWS:
                    writer.write_table(pa.Table.from_pylist(taken, SCHEMA))
                    taken = []
            writer.write_table(pa.Table.from_pylist(taken, SCHEMA))
        if intake.questions[split]:
            unfinished.replace(files[split])
        else:
            unfinished.unlink()
            files[split].unlink(missing_ok=True)
    return intake


def keep_only(path: Path, clip_ids: set[str]) -> None:
    """Leave in a questions file the rows of these clips."""
    unfinished = path.with_suffix(".unfinished")
    with pyarrow.parquet.ParquetFile(path) as file, pyarrow.parquet.ParquetWriter(unfinished, SCHEMA) as writer:
        for batch in file.iter_batches(BATCH_ROWS):
            mask = [clip_id in clip_ids for clip_id in batch.column("clip_id").to_pylist()]
            writer.write_batch(batch.filter(pa.array(mask)))
    unfinished.replace(path)


# ---- one row


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
        wanted = Wanted(clip_id, link, root if link.kind == "file" else None, _film(kept, row))
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
        intake.clips[split][clip_id] = wanted
        return kept
    except InputError as error:
        reason = " ".join(SECRETS.sub(r"\1...", str(error)).encode("utf-8", "backslashreplace").decode().split())
        shown = reason if len(reason) <= MOST_REASON_CHARS else f"{reason[: MOST_REASON_CHARS - 3]}..."
        intake.rejected.append({"row": place, "reason": shown})
        return None


def _link(address: object, row: Mapping[str, Any], root: Path | None) -> tuple[links.Link, str]:
    link = links.read_link(address)
    given = row.get("clip_id") or row.get("videoID")
    clip_id = given if given and link.kind != "youtube" else link.clip_id
    if not links.is_safe_id(clip_id):
        raise InputError(f"clip_id must be letters, digits, - and _, at most 100 of them, got {clip_id!r}")
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
    return links.film_of(row["title"])


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


# ---- where rows come from


def _sources(
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
        reason = " ".join(str(error).split())[:MOST_REASON_CHARS]
        raise InputError(f"questions {str(path)!r} cannot be read ({reason}): make the file again.") from None
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
        reason = " ".join(str(error).split())[:MOST_REASON_CHARS]
        raise InputError(
            f"questions {version!r} cannot be loaded from {HUB} ({reason}): accept its terms and log in with "
            "`hf auth login`, or name local files."
        ) from None
    for batch in table.with_format("arrow").iter(BATCH_ROWS):
        for found in batch.to_batches():
            yield from _batch_rows(found)
