"""Clips for questions: fetched politely, checked, named by their id, and remembered in clips.parquet.

questions/{train,test}.parquet   what is asked
clips/<clip_id>.mp4              there whole or not at all
clips.parquet                    every clip ever asked for, with its status
clips.journal                    results since clips.parquet was written; gone after an undisturbed run
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import queue
import random
import shutil
import threading
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from cinetune.errors import InputError
from cinetune.fetching import DISK_IS_FULL, PASSING, Fetched, Fetcher, FetchLimits
from cinetune.frames import FrameSettings
from cinetune.intake import SPLITS, Intake, Wanted
from cinetune.params import DownloadParams
from cinetune.video import Decoder, Limits, VideoError
from cinetune.video2dataset import Stored

# Told by the server and not to be expected otherwise tomorrow, or a property of the file.
FINAL = {"ok", "unavailable", "private", "geo_blocked", "age_restricted", "too_large", "too_long", "broken"}
FINAL |= {"not_a_video", "missing", "unreadable"}
# After these in a row the network or the server is at fault, not a clip.
OF_THE_SERVER = {"rate_limited", "forbidden", "network", "timeout"}
MOST_WAIT_S = 300.0
PARTIAL = ".partial"
FULL = (errno.ENOSPC, errno.EDQUOT)
# One small frame: it shows that the index is whole, that all packets are there and that decoding begins.
PROBE = FrameSettings("uniform", num_frames=1, size=16, cut_threshold=30.0, min_shot_frames=15)
SCHEMA = pa.schema(
    [
        ("clip_id", pa.string()),
        ("url", pa.string()),
        ("film", pa.string()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("attempts", pa.int64()),
        ("duration_s", pa.float64()),
    ]
)


@dataclass(frozen=True)
class ClipRecord:
    """A row of clips.parquet; attempts count all runs, files that were there already count as one."""

    clip_id: str
    url: str
    film: str
    status: str
    reason: str
    attempts: int
    duration_s: float | None


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
            self.records = {row["clip_id"]: ClipRecord(**row) for row in table.to_pylist()}
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
        self.records[record.clip_id] = record
        self._journal.write(json.dumps(asdict(record)).encode() + b"\n")
        self._journal.flush()
        os.fsync(self._journal.fileno())

    def save(self) -> None:
        """Everything into clips.parquet, by clip id, so that the order of events leaves no trace."""
        rows = [asdict(self.records[clip_id]) for clip_id in sorted(self.records)]
        unfinished = self._path.with_suffix(".unfinished")
        with unfinished.open("wb") as file:
            pyarrow.parquet.write_table(pa.Table.from_pylist(rows, SCHEMA), file)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(self._path)
        self._journal.close()
        self._journal_path.unlink()


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """One download at a time into a folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise InputError(f"another download fills {str(folder)!r}: wait for its end, or stop it.") from None
    finally:
        os.close(descriptor)


@contextmanager
def telling_full_disk(folder: Path) -> Iterator[None]:
    """What was recorded stays, and a run after space was made goes on from there."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise InputError(f"the disk that holds {str(folder)!r} is full: free space and run it again.") from None


class Downloader:
    """Brings clips into <folder>/clips with several children at once. Use as a context manager."""

    def __init__(self, folder: Path, params: DownloadParams, limits: Limits, stored: dict[str, Stored]) -> None:
        self._clips, self._partial = folder / "clips", folder / PARTIAL
        self._params, self._stored = params, stored
        self._decoder = Decoder(limits)
        self._fetch_limits = FetchLimits(
            timeout_s=params.timeout_s,
            stall_s=params.stall_s,
            max_megabytes=params.max_megabytes,
            max_duration_s=params.max_duration_s,
            cookies=params.cookies,
        )
        self._stopped = threading.Event()
        self._resources = ExitStack()

    def __enter__(self) -> Downloader:
        shutil.rmtree(self._partial, ignore_errors=True)
        self._partial.mkdir(parents=True)
        self._clips.mkdir(exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._resources.close()
        self._decoder.close()
        shutil.rmtree(self._partial, ignore_errors=True)

    def needed(self, clips: Sequence[Wanted], manifest: Manifest, again: set[str]) -> list[Wanted]:
        """The clips that are neither there nor known to be out of reach."""
        present = {path.stem for path in self._clips.glob("*.mp4")}
        needed = []
        for clip in clips:
            known = manifest.records.get(clip.clip_id)
            is_settled = known is not None and known.status in FINAL and known.status not in again
            if not is_settled or (known.status == "ok" and clip.clip_id not in present):
                needed.append(clip)
        return needed

    def run(self, clips: Sequence[Wanted], manifest: Manifest) -> Iterator[ClipRecord]:
        """Bring each clip, and record it before it is given out. Raises InputError when going on makes no sense."""
        pool = self._resources.enter_context(ThreadPoolExecutor(self._params.workers))
        self._resources.callback(pool.shutdown, wait=False, cancel_futures=True)
        idle: queue.SimpleQueue[Fetcher] = queue.SimpleQueue()
        for _ in range(self._params.workers):
            idle.put(self._resources.enter_context(Fetcher(self._fetch_limits)))

        def bring(clip: Wanted) -> ClipRecord:
            fetcher = idle.get()
            try:
                return self._bring(clip, manifest.records.get(clip.clip_id), fetcher)
            finally:
                idle.put(fetcher)

        waiting: set[Future[ClipRecord]] = set()
        failures_in_a_row = 0
        rest = deque(clips)
        while rest or waiting:
            while rest and len(waiting) < 2 * self._params.workers:
                waiting.add(pool.submit(bring, rest.popleft()))
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for record in (future.result() for future in done):
                manifest.record(record)
                failures_in_a_row = failures_in_a_row + 1 if record.status in OF_THE_SERVER else 0
                yield record
            if failures_in_a_row >= self._params.stop_after:
                raise InputError(
                    f"{failures_in_a_row} clips in a row failed, the last with {record.status!r} "
                    f"({record.reason[:-1]}): run it again later, it goes on from here."
                )

    def _bring(self, clip: Wanted, known: ClipRecord | None, fetcher: Fetcher) -> ClipRecord:
        target = self._clips / f"{clip.clip_id}.mp4"
        before = known.attempts if known else 0
        if known is None and target.is_file():
            # Put there whole by a run that was stopped before it could say so.
            result, duration_s = self._probe(target, clip.clip_id)
            if result.status == "ok":
                return _record(clip, result, 1, duration_s)
        scratch = self._partial / f"{clip.clip_id}.{os.getpid()}"
        try:
            result, attempts, duration_s = self._attempts(clip, scratch, fetcher)
            if result.status == DISK_IS_FULL:
                raise OSError(errno.ENOSPC, result.reason)
            if result.status == "ok":
                _settle(scratch, target)
        finally:
            scratch.unlink(missing_ok=True)
        return _record(clip, result, before + attempts, duration_s)

    def _attempts(self, clip: Wanted, scratch: Path, fetcher: Fetcher) -> tuple[Fetched, int, float | None]:
        """The result of the last attempt, how many there were, and the clip's length where it is good."""
        if clip.clip_id in self._stored:
            self._stored[clip.clip_id].put(scratch)
            result, duration_s = self._probe(scratch, clip.clip_id)
            if result.status == "ok":
                return result, 1, duration_s
        for attempt in range(1, self._params.retries + 2):
            scratch.unlink(missing_ok=True)
            result, duration_s = self._attempt(clip, scratch, fetcher)
            if result.status not in PASSING or clip.link.kind == "file" or attempt > self._params.retries:
                break
            pause_s = max(result.wait_s, self._params.backoff_s * 2 ** (attempt - 1) * random.uniform(0.5, 1.5))
            if self._stopped.wait(min(pause_s, MOST_WAIT_S)):
                break
        return result, attempt, duration_s

    def _attempt(self, clip: Wanted, scratch: Path, fetcher: Fetcher) -> tuple[Fetched, float | None]:
        if clip.link.kind == "file":
            result = _take_file(clip, scratch, self._params.max_megabytes)
        else:
            result = fetcher.fetch(clip.link, scratch)
            self._stopped.wait(self._params.pause_s * random.uniform(0.5, 1.5))
        return self._probe(scratch, clip.clip_id) if result.status == "ok" else (result, None)

    def _probe(self, path: Path, name: str) -> tuple[Fetched, float | None]:
        try:
            return Fetched("ok"), self._decoder.read(path, PROBE, name).duration_s
        except VideoError as error:
            return Fetched(error.status, str(error)), None


def _record(clip: Wanted, result: Fetched, attempts: int, duration_s: float | None) -> ClipRecord:
    return ClipRecord(clip.clip_id, clip.link.url, clip.film, result.status, result.reason, attempts, duration_s)


def _take_file(clip: Wanted, target: Path, max_megabytes: int) -> Fetched:
    """A link or copy of a file below the clip's root, wherever symbolic links lead."""
    try:
        path = (clip.root / clip.link.url).resolve(strict=True)
        if not path.is_relative_to(clip.root):
            return Fetched("unreadable", "is outside the folder that links may name: move it there.")
        if not path.is_file():
            return Fetched("unreadable", "is not a regular file.")
        if path.stat().st_size > max_megabytes * 10**6:
            return Fetched("too_large", f"is above the limit of {max_megabytes} MB: raise download.max_megabytes.")
        Stored(path).put(target)
    except (FileNotFoundError, NotADirectoryError):
        return Fetched("missing", "does not exist.")
    except (OSError, RuntimeError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in FULL:
            raise
        return Fetched("unreadable", "cannot be opened.")
    return Fetched("ok")


def _settle(scratch: Path, target: Path) -> None:
    with scratch.open("rb") as file:
        os.fsync(file.fileno())
    scratch.replace(target)


# ---- what was lost


def report(intake: Intake, chosen: Iterable[Wanted], records: dict[str, ClipRecord]) -> dict[str, Any]:
    """Attrition by split and film, and what the splits share. Without addresses: they may hold secrets."""
    wanted = {clip.clip_id for clip in chosen}
    splits, films = {}, {}
    for split in SPLITS:
        clips = [clip for clip in intake.clips[split].values() if clip.clip_id in wanted]
        status = {clip.clip_id: records[clip.clip_id].status for clip in clips if clip.clip_id in records}
        asked, lost = intake.questions[split], Counter(status.get(clip.clip_id, "waiting") for clip in clips)
        splits[split] = {
            "clips": len(clips),
            "clips_by_status": dict(sorted(lost.items())),
            "questions": sum(asked[clip.clip_id] for clip in clips),
            "questions_lost": sum(asked[clip.clip_id] for clip in clips if status.get(clip.clip_id) != "ok"),
        }
        by_film: dict[str, Counter[str]] = {}
        for clip in clips:
            kind = "ok" if status.get(clip.clip_id) == "ok" else "lost"
            by_film.setdefault(clip.film, Counter(ok=0, lost=0))[kind] += 1
        films[split] = {film: dict(count) for film, count in sorted(by_film.items())}
    shared_films = sorted(set(films["train"]) & set(films["test"]))
    shared_clips = sorted(wanted & set(intake.clips["train"]) & set(intake.clips["test"]))
    return {
        "rows": intake.num_rows,
        "rows_rejected": len(intake.rejected),
        "splits": splits,
        "overlap": {"films": shared_films, "clips": shared_clips},
        "films": films,
    }
