"""Clips for questions: fetched politely, checked, named by their id, and recorded in clips.parquet.

questions/{train,test}.parquet   what is asked
clips/<clip_id>.mp4              there whole or not at all
clips.parquet                    every clip ever asked for, with its status
clips.journal                    results since clips.parquet was written; gone after an undisturbed run
"""

from __future__ import annotations

import errno
import os
import queue
import random
import shutil
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from cinetune.data.fetching import DISK_IS_FULL, PASSING, Fetcher, FetchLimits, FetchResult
from cinetune.data.intake import ClipRequest
from cinetune.data.manifest import ClipRecord, Manifest
from cinetune.data.video2dataset import StoredVideo
from cinetune.errors import InputError
from cinetune.files import move_whole, only_one, write_json
from cinetune.frames.decoder import Decoder
from cinetune.frames.limits import Limits, VideoError
from cinetune.frames.sampling import FrameSettings
from cinetune.params import DownloadParams

# Permanent: reported by the server as such, or a property of the file.
FINAL = {"ok", "unavailable", "private", "geo_blocked", "age_restricted", "too_large", "too_long", "broken"}
FINAL |= {"not_a_video", "missing", "unreadable"}
# After these in a row the network or the server is at fault, not a clip.
OF_THE_SERVER = {"rate_limited", "forbidden", "network", "timeout"}
MAX_WAIT_S = 300.0
PARTIAL, LOCK = ".partial", ".lock"
# Its presence says that a folder is ours to fill.
MARK = "download.json"
FULL = (errno.ENOSPC, errno.EDQUOT)
# One small frame: it shows that the index is whole, that all packets are there and that decoding begins.
PROBE = FrameSettings("uniform", num_frames=1, size=16, cut_threshold=30.0, min_shot_frames=15)


def claim(params: DownloadParams) -> Path:
    """The folder to fill: an empty one, or one that was filled before. Raises InputError for wrong params."""
    if not params.questions:
        raise InputError("download.questions is empty: pass -P questions=<file>, or v1 or v2 for the hub's.")
    if params.cookies and not Path(params.cookies).is_file():
        raise InputError(f"download.cookies {params.cookies!r} is not a file: export one in Netscape's format.")
    folder, name = Path(params.data_dir), params.data_dir
    if folder.exists() and not folder.is_dir():
        raise InputError(f"download.data_dir {name!r} is not a folder: name another.")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARK).is_file():
        raise InputError(f"download.data_dir {name!r} holds what download has not put there: name another folder.")
    (folder / "questions").mkdir(parents=True, exist_ok=True)
    if not (folder / MARK).is_file():
        write_json(folder / MARK, {"made_by": "cinetune download"})
    return folder


def held(folder: Path) -> AbstractContextManager[None]:
    """One download at a time into a folder. Raises InputError where another one runs."""
    return only_one(folder / LOCK, f"another download fills {str(folder)!r}: wait for its end, or stop it.")


@contextmanager
def telling_full_disk(folder: Path) -> Iterator[None]:
    """Raises InputError for a full disk. What was recorded stays, and the next run resumes from there."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise InputError(f"the disk that holds {str(folder)!r} is full: free space and run it again.") from None


class Downloader:
    """Brings clips into <folder>/clips with several children at once. Use as a context manager."""

    def __init__(self, folder: Path, params: DownloadParams, limits: Limits, stored: dict[str, StoredVideo]) -> None:
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

    def needed(self, clips: Sequence[ClipRequest], manifest: Manifest, again: set[str]) -> list[ClipRequest]:
        """The clips that are neither there nor known to be out of reach."""
        present = {path.stem for path in self._clips.glob("*.mp4")}
        needed = []
        for clip in clips:
            known = manifest.records.get(clip.clip_id)
            is_settled = known is not None and known.status in FINAL - again
            is_lost = known is not None and known.status == "ok" and clip.clip_id not in present
            if not is_settled or is_lost:
                needed.append(clip)
        return needed

    def run(self, clips: Sequence[ClipRequest], manifest: Manifest) -> Iterator[ClipRecord]:
        """Bring each clip, and record it before it is given out. Raises InputError when too many fail in a row."""
        pool = self._resources.enter_context(ThreadPoolExecutor(self._params.workers))
        self._resources.callback(pool.shutdown, wait=False, cancel_futures=True)
        idle: queue.SimpleQueue[Fetcher] = queue.SimpleQueue()
        for _ in range(self._params.workers):
            idle.put(self._resources.enter_context(Fetcher(self._fetch_limits)))

        def bring(clip: ClipRequest) -> ClipRecord:
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
                    f"({record.reason[:-1]}): run it again later, it resumes from here."
                )

    def _bring(self, clip: ClipRequest, known: ClipRecord | None, fetcher: Fetcher) -> ClipRecord:
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
                move_whole(scratch, target)
        finally:
            scratch.unlink(missing_ok=True)
        return _record(clip, result, before + attempts, duration_s)

    def _attempts(self, clip: ClipRequest, scratch: Path, fetcher: Fetcher) -> tuple[FetchResult, int, float | None]:
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
            if self._stopped.wait(min(pause_s, MAX_WAIT_S)):
                break
        return result, attempt, duration_s

    def _attempt(self, clip: ClipRequest, scratch: Path, fetcher: Fetcher) -> tuple[FetchResult, float | None]:
        if clip.root is not None:
            result = _take_file(clip.root, clip.link.url, scratch, self._params.max_megabytes)
        else:
            result = fetcher.fetch(clip.link, scratch)
            self._stopped.wait(self._params.pause_s * random.uniform(0.5, 1.5))
        return self._probe(scratch, clip.clip_id) if result.status == "ok" else (result, None)

    def _probe(self, path: Path, name: str) -> tuple[FetchResult, float | None]:
        try:
            return FetchResult("ok"), self._decoder.read(path, PROBE, name).duration_s
        except VideoError as error:
            return FetchResult(error.status, str(error)), None


def _record(clip: ClipRequest, result: FetchResult, attempts: int, duration_s: float | None) -> ClipRecord:
    return ClipRecord(clip.clip_id, clip.link.url, clip.film, result.status, result.reason, attempts, duration_s)


def _take_file(root: Path, name: str, target: Path, max_megabytes: int) -> FetchResult:
    """A link or copy of a file below a root, wherever symbolic links lead."""
    try:
        path = (root / name).resolve(strict=True)
        if not path.is_relative_to(root):
            return FetchResult("unreadable", "is outside the folder that links may name: move it there.")
        if not path.is_file():
            return FetchResult("unreadable", "is not a regular file.")
        if path.stat().st_size > max_megabytes * 10**6:
            return FetchResult("too_large", f"is above the limit of {max_megabytes} MB: raise download.max_megabytes.")
        StoredVideo(path).put(target)
    except (FileNotFoundError, NotADirectoryError):
        return FetchResult("missing", "does not exist.")
    except (OSError, RuntimeError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in FULL:
            raise
        return FetchResult("unreadable", "cannot be opened.")
    return FetchResult("ok")
