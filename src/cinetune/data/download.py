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
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from cinetune import provenance
from cinetune.data.fetching import DISK_IS_FULL, PASSING, Fetcher, FetchLimits, FetchResult, missing_parts
from cinetune.data.intake import ClipRequest
from cinetune.data.manifest import ClipRecord, Manifest
from cinetune.data.pacing import REFUSALS, Pace
from cinetune.data.sources.stored import StoredVideo
from cinetune.data.verdicts import MISSING, Verdicts
from cinetune.errors import InputError
from cinetune.files import move_whole, only_one, text_digest, write_json
from cinetune.frames.decoder import Decoder
from cinetune.frames.limits import Limits, VideoError
from cinetune.frames.sampling import FrameSettings
from cinetune.params import DownloadParams

MAX_WAIT_S = 300.0
PARTIAL, UNREAD, LOCK = ".partial", ".questions", ".lock"
# Its presence says that a folder is ours to fill.
MARK = "download.json"
FULL = (errno.ENOSPC, errno.EDQUOT)
# One small frame: it shows that the index is whole, that all packets are there and that decoding begins.
PROBE = FrameSettings("uniform", num_frames=1, size=16, cut_threshold=30.0, min_shot_frames=15)
# At 360p, measured on film-like footage of 160 s.
MEGABYTES_A_CLIP = 10.9
# How much shorter than announced a clip may be: announcements are rounded.
MAX_SHORT_S, MAX_SHORT_SHARE = 1.0, 0.02


def claim(params: DownloadParams) -> Path:
    """The folder to fill: an empty one, or one that was filled before. Raises InputError for wrong params."""
    if not params.questions:
        raise InputError("download.questions is empty: pass -P questions=<file>, or v1 or v2 for the hub's.")
    if params.cookies and not Path(params.cookies).is_file():
        raise InputError(f"download.cookies {params.cookies!r} is not a file: export one in Netscape's format.")
    folder, name = Path(params.data_dir), params.data_dir
    if params.videos and not Path(params.videos).is_dir():
        raise InputError(f"videos {params.videos!r} is no folder: name one that holds videos, or leave it out.")
    if params.pin:
        provenance.check_addable(folder)
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


def plan(needed: Sequence[ClipRequest], params: DownloadParams) -> list[str]:
    """What asking for these clips takes, and what is missing for it; nothing where none is asked for."""
    kinds = Counter(clip.link.kind for clip in needed)
    num_asked = kinds["youtube"] + kinds["http"]
    lines = []
    if num_asked:
        hours = num_asked * params.pause_s / 3600
        gigabytes = num_asked * MEGABYTES_A_CLIP / 1000
        pinned = f", {2 * gigabytes:.1f} GB with what DVC copies into its cache (docs/disk.md)" if params.pin else ""
        free = shutil.disk_usage(params.data_dir).free / 1e9
        lines.append(
            f"{num_asked} clips to ask for, one each {params.pause_s:g} s: about {hours:.1f} hours and "
            f"{gigabytes:.1f} GB{pinned}; {free:.1f} GB are free."
        )
    missing = missing_parts() if kinds["youtube"] else []
    if missing:
        parts = " and ".join(missing)
        lines.append(f"{parts} not installed, so YouTube refuses some clips: `pip install 'yt-dlp[default,deno]'`.")
    return lines


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """A folder for what may yet be refused, gone afterwards."""
    new = folder / UNREAD
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    try:
        yield new
    finally:
        shutil.rmtree(new, ignore_errors=True)


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

    def __init__(
        self, folder: Path, params: DownloadParams, limits: Limits, stored: Mapping[str, Sequence[StoredVideo]]
    ) -> None:
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
        self._pace = Pace(params, self._stopped)
        self._resources = ExitStack()
        self._idle: queue.SimpleQueue[Fetcher] = queue.SimpleQueue()
        # By server one clip that came from there.
        self._good: dict[str, ClipRequest] = {}

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
        """The clips that are neither there nor known to be out of reach.

        Films are mixed, always in the same way: then many failures in a row say something of the server or the client.
        """
        present = {path.stem for path in self._clips.glob("*.mp4")}
        needed = []
        for clip in clips:
            known = manifest.records.get(clip.clip_id)
            is_there = known is not None and known.status == "ok" and clip.clip_id in present
            if is_there:
                self._good[clip.link.server] = clip
            is_settled = known is not None and (is_there if known.status == "ok" else known.settled)
            if known is None or not is_settled or known.status in again:
                needed.append(clip)
        return sorted(needed, key=lambda clip: text_digest(clip.clip_id))

    def run(self, clips: Sequence[ClipRequest], manifest: Manifest) -> Iterator[ClipRecord]:
        """Bring each clip, and record it before it is given out.

        Raises InputError when too many in a row fail, or when the server refuses for too long.
        """
        pool = self._resources.enter_context(ThreadPoolExecutor(self._params.workers))
        self._resources.callback(pool.shutdown, wait=False, cancel_futures=True)
        for _ in range(self._params.workers):
            self._idle.put(self._resources.enter_context(Fetcher(self._fetch_limits)))

        def bring(clip: ClipRequest) -> tuple[ClipRequest, ClipRecord, bool]:
            return clip, *self._bring(clip, manifest.records.get(clip.clip_id))

        waiting: set[Future[tuple[ClipRequest, ClipRecord, bool]]] = set()
        verdicts = Verdicts(manifest, self._good, self._params.stop_after)
        rest = deque(clips)
        while rest or waiting:
            while rest and len(waiting) < 2 * self._params.workers:
                waiting.add(pool.submit(bring, rest.popleft()))
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for clip, record, is_asked in (future.result() for future in done):
                manifest.record(record)
                if is_asked:
                    verdicts.add(clip, record)
                yield record
            self._pace.check()
            verdicts.check(self._still_comes)
        verdicts.conclude(self._still_comes)

    def _bring(self, clip: ClipRequest, known: ClipRecord | None) -> tuple[ClipRecord, bool]:
        """What came of a clip, and whether its link was followed for it."""
        target = self._clips / f"{clip.clip_id}.mp4"
        before = known.attempts if known else 0
        if known is None and target.is_file():
            # Put there whole by a run that was stopped before it could say so.
            result, duration_s = self._probe(target, clip.clip_id)
            if result.status == "ok":
                return _record(clip, result, 1, duration_s), False
        scratch = self._partial / f"{clip.clip_id}.{os.getpid()}"
        try:
            result, duration_s = self._take_stored(clip, scratch)
            attempts, is_asked = 1, result.status != "ok"
            if is_asked:
                result, attempts, duration_s = self._attempts(clip, scratch)
            if result.status == DISK_IS_FULL:
                raise OSError(errno.ENOSPC, result.reason)
            if result.status == "ok":
                move_whole(scratch, target)
        finally:
            scratch.unlink(missing_ok=True)
        return _record(clip, result, before + attempts, duration_s), is_asked

    def _take_stored(self, clip: ClipRequest, scratch: Path) -> tuple[FetchResult, float | None]:
        for video in self._stored.get(clip.clip_id, ()):
            scratch.unlink(missing_ok=True)
            video.put(scratch)
            result, duration_s = self._probe(scratch, clip.clip_id, video.duration_s)
            if result.status == "ok":
                return result, duration_s
        return FetchResult(MISSING), None

    def _attempts(self, clip: ClipRequest, scratch: Path) -> tuple[FetchResult, int, float | None]:
        """The result of the last attempt, how many there were, and the clip's length where it is good."""
        for attempt in range(1, self._params.retries + 2):
            scratch.unlink(missing_ok=True)
            result, duration_s = self._attempt(clip, scratch)
            is_passing = result.status in PASSING and clip.root is None and not self._pace.is_exhausted
            if not is_passing or attempt > self._params.retries:
                break
            # After a refusal it is the pace that waits, for all.
            if result.status not in REFUSALS:
                pause_s = max(result.wait_s, self._params.backoff_s * 2 ** (attempt - 1) * random.uniform(0.5, 1.5))
                self._stopped.wait(min(pause_s, MAX_WAIT_S))
            if self._stopped.is_set():
                break
        return result, attempt, duration_s

    def _attempt(self, clip: ClipRequest, scratch: Path) -> tuple[FetchResult, float | None]:
        if clip.root is not None:
            result = _take_file(clip.root, clip.link.url, scratch, self._params.max_megabytes)
        elif self._pace.wait_turn():
            fetcher = self._idle.get()
            try:
                result = fetcher.fetch(clip.link, scratch)
                self._pace.answer(result)
            finally:
                self._idle.put(fetcher)
        else:
            result = FetchResult("network", "was not asked for: the download was stopped.")
        return self._probe(scratch, clip.clip_id, result.duration_s) if result.status == "ok" else (result, None)

    def _still_comes(self, clip: ClipRequest) -> bool:
        scratch = self._partial / f"{clip.clip_id}.again"
        try:
            return self._attempt(clip, scratch)[0].status == "ok"
        finally:
            scratch.unlink(missing_ok=True)

    def _probe(self, path: Path, name: str, announced_s: float | None = None) -> tuple[FetchResult, float | None]:
        try:
            duration_s = self._decoder.read(path, PROBE, name).duration_s
        except VideoError as error:
            return FetchResult(error.status, str(error)), None
        missing_s = (announced_s or 0.0) - duration_s
        if missing_s > max(MAX_SHORT_S, MAX_SHORT_SHARE * (announced_s or 0.0)):
            reason = f"lasts {duration_s:.1f} s where its source announces {announced_s:.1f} s: fetch it again."
            return FetchResult("broken", reason), None
        return FetchResult("ok"), duration_s


def _record(clip: ClipRequest, result: FetchResult, attempts: int, duration_s: float | None) -> ClipRecord:
    """A clip that came is settled; what else is, becomes clear later."""
    is_ok = result.status == "ok"
    return ClipRecord(clip.clip_id, clip.link.url, clip.film, result.status, result.reason, attempts, duration_s, is_ok)


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
        return FetchResult(MISSING, "does not exist.")
    except (OSError, RuntimeError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in FULL:
            raise
        return FetchResult("unreadable", "cannot be opened.")
    return FetchResult("ok")
