"""A table of questions about a folder of videos: answered clip by clip, and resumed where it was stopped.

Rows have the columns of the plain format; an answer is not needed, and is never shown to the model.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet
from tqdm import tqdm

from cinetune.data.importing import records, sources
from cinetune.data.importing.library import Library, Video
from cinetune.data.importing.records import Record
from cinetune.errors import InputError
from cinetune.files import text_digest, writing
from cinetune.frames.decoder import Decoder
from cinetune.frames.images.decoder import ImageDecoder
from cinetune.frames.limits import Limits
from cinetune.frames.sampling import ClipFrames, FrameSettings
from cinetune.inference.journal import Journal, SavedReply
from cinetune.inference.scoring import QuestionPrompt, Reply
from cinetune.params import PredictParams
from cinetune.task.checks import check_choices
from cinetune.task.description import Task

if TYPE_CHECKING:
    from cinetune.serving.service import Service

logger = logging.getLogger(__name__)

REQUIRED = ("video", "question", "choices")
# As journals call replies that nothing was withheld from.
PLAIN = "none"
SCHEMA = pa.schema(
    [
        ("row", pa.string()),
        ("video", pa.string()),
        ("question", pa.string()),
        ("choices", pa.list_(pa.string())),
        ("expected", pa.string()),
        ("answer", pa.string()),
        ("choice", pa.string()),
        ("confidence", pa.float64()),
        ("raw", pa.string()),
        ("error", pa.string()),
    ]
)
MAX_FAILED_SHOWN = 5
SUFFIXES = (".parquet", ".csv", ".jsonl")


@dataclass(frozen=True)
class Asked:
    """The questions of one part of one video under the same subtitles, in their order."""

    video: Video
    start_s: float
    end_s: float
    subtitles: str
    records: tuple[Record, ...]

    @property
    def key(self) -> str:
        """Another one for whatever would lead to other replies of the same model."""
        status = self.video.path.stat()
        shown = [self.video.name, status.st_size, status.st_mtime_ns, self.start_s, self.end_s, self.subtitles]
        return text_digest(json.dumps([shown, [(item.question, item.choices) for item in self.records]]))[:32]


class Table:
    """The rows of a table: what is asked of which clip, and the answers or reasons, row by row."""

    def __init__(self, questions: str, videos: str, task: Task) -> None:
        """Raises InputError for files that cannot be read; a row that cannot be asked gets a reason."""
        self._library = Library(sources.videos_folder(videos, questions))
        self._task = task
        self.rows: list[dict[str, Any]] = []
        self.groups = self._group(questions)

    @property
    def counts(self) -> dict[str, int]:
        """Of "rows" and "rows_failed", which have a reason instead of an answer."""
        return {"rows": len(self.rows), "rows_failed": sum(row["error"] is not None for row in self.rows)}

    @property
    def told(self) -> str:
        """How many rows have an answer, in words."""
        counts = self.counts
        return f"{counts['rows'] - counts['rows_failed']} of {counts['rows']} rows answered"

    @property
    def complaints(self) -> list[str]:
        """The first rows that have no answer, with their reasons."""
        failed = [row for row in self.rows if row["error"] is not None]
        return [f"{row['row']}: {row['error']}" for row in failed[:MAX_FAILED_SHOWN]]

    def put(self, asked: Asked, answers: Sequence[Mapping[str, Any]]) -> None:
        """Note what was answered to the questions of a clip."""
        for record, answer in zip(asked.records, answers, strict=True):
            self.rows[record.number] |= answer

    def write(self, path: Path) -> None:
        """As Parquet, CSV or JSON lines, by its suffix; whole or not at all."""
        table = pa.Table.from_pylist(self.rows, SCHEMA)
        path.parent.mkdir(parents=True, exist_ok=True)
        with writing(path) as file:
            if path.suffix == ".parquet":
                pyarrow.parquet.write_table(table, file)
            elif path.suffix == ".csv":
                texts = [json.dumps(choices, ensure_ascii=False) for choices in table["choices"].to_pylist()]
                place = table.schema.get_field_index("choices")
                pyarrow.csv.write_csv(table.set_column(place, "choices", pa.array(texts, pa.string())), file)
            else:
                file.writelines(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in table.to_pylist())

    def _group(self, questions: str) -> list[Asked]:
        groups: dict[tuple[Video, float, float, str], list[Record]] = {}
        for number, row in enumerate(sources.read(questions, sources.PLAIN, REQUIRED)):
            content = {} if isinstance(row.content, str) else row.content
            kept = {name: _shown(content.get(name)) for name in ("video", "question")}
            self.rows.append({"row": row.name, **kept, "choices": None, "expected": None, "error": None})
            try:
                if isinstance(row.content, str):
                    raise InputError(row.content)
                record = records.read(row.content, number, "", is_answered=False)
                if record.choices and (reason := check_choices(record.choices, self._task)):
                    raise InputError(reason)
                video = self._library.find(record.video)
                group = (video, record.start_s, record.end_s, self._library.words(record))
            except InputError as error:
                self.rows[number] |= {"answer": "", "raw": "", "error": f"{str(error).removesuffix('.')}."}
                continue
            told = record.choices[record.answer] if record.choices and record.answer >= 0 else record.words or None
            self.rows[number] |= {"choices": list(record.choices), "expected": told}
            groups.setdefault(group, []).append(record)
        return [Asked(*group, tuple(found)) for group, found in groups.items()]


def check_out(asked: PredictParams) -> Path:
    """The file for the answers. Raises InputError for one that is none, and for a question beside the table."""
    out, path = asked.out, Path(asked.out)
    if asked.video or asked.question:
        raise InputError("predict.table is asked for, and video or question too: give the one or the others.")
    if path.suffix not in SUFFIXES or path.is_dir():
        raise InputError(f"predict.out must be a {', '.join(SUFFIXES)} file, got {out!r}.")
    return path


def fill(
    table: Table,
    out: Path,
    service: Service,
    work: Path,
    begin: Callable[[Callable[[str], str | None]], None],
    progress: Callable[[int], tqdm[Any]],
) -> None:
    """Answer a table into a file; what a killed process of the same work had answered is not asked again.

    work: where replies are kept until the file is there; begin: called with `Journal.take_over`.
    """
    with Journal(work) as journal:
        begin(journal.take_over)
        answer(table, service, journal, progress)
        table.write(out)
        journal.remove()
    for line in table.complaints:
        logger.warning("predict: %s", line)


def answer(table: Table, service: Service, journal: Journal, progress: Callable[[int], tqdm[Any]]) -> None:
    """Answer all questions of a table, clip after clip; those that the journal holds are not asked again."""
    done = journal.read()
    waiting = [asked for asked in table.groups if asked.key not in done]
    for asked in table.groups:
        if asked.key in done:
            table.put(asked, _answers(asked, _restored(done[asked.key][PLAIN]), service))
    with progress(len(table.groups)) as bar:
        bar.update(len(table.groups) - len(waiting))
        for asked, clip in _decoded(waiting, service):
            if isinstance(clip, InputError):
                table.put(asked, [service.shown(_prompt(record), clip) for record in asked.records])
            else:
                replies = service.replies(clip, asked.subtitles, [_prompt(record) for record in asked.records])
                if all(isinstance(reply, Reply) for reply in replies):
                    journal.add(asked.key, {PLAIN: [_saved(reply) for reply in replies if isinstance(reply, Reply)]})
                table.put(asked, _answers(asked, replies, service))
            bar.set_postfix(rows_failed=table.counts["rows_failed"], refresh=False)
            bar.update()


def _prompt(record: Record) -> QuestionPrompt:
    return QuestionPrompt(record.question, record.choices or None)


def _answers(asked: Asked, replies: Sequence[Reply | InputError], service: Service) -> list[dict[str, Any]]:
    return [service.shown(_prompt(record), reply) for record, reply in zip(asked.records, replies, strict=True)]


def _saved(reply: Reply) -> SavedReply:
    return reply.raw, reply.probabilities or (), reply.letter_mass


def _restored(saved: Sequence[SavedReply]) -> list[Reply]:
    return [Reply(raw, shares or None, mass) for raw, shares, mass in saved]


def _decoded(groups: Sequence[Asked], service: Service) -> Iterator[tuple[Asked, ClipFrames | InputError]]:
    """Each clip's frames, or why there are none; the next is decoded while one is asked about."""
    limits, settings = Limits.of(service.frames), FrameSettings.of(service.frames)
    with ExitStack() as stack:
        videos = stack.enter_context(Decoder(limits))
        images = stack.enter_context(ImageDecoder(limits, service.frames.images_per_s))
        pool = stack.enter_context(ThreadPoolExecutor(1))

        def decode(asked: Asked) -> ClipFrames | InputError:
            part = (asked.start_s, asked.end_s) if asked.start_s or asked.end_s else None
            try:
                if not asked.video.is_folder:
                    return videos.read(asked.video.path, settings, asked.video.name, part)
                return images.read(asked.video.path, settings, asked.video.name, part)
            except InputError as error:
                return error

        coming: Future[ClipFrames | InputError] | None = None
        for place, asked in enumerate(groups):
            found = (coming or pool.submit(decode, asked)).result()
            coming = pool.submit(decode, groups[place + 1]) if place + 1 < len(groups) else None
            yield asked, found


def _shown(value: Any) -> str | None:
    return None if value is None else str(value).encode("utf-8", "backslashreplace").decode()
