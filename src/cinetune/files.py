"""Files and folders: written whole or not at all, held by one process at a time, and known by their digests."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from cinetune.errors import InputError

# How the name of a file ends that is still being written, or was when its writer was killed.
UNFINISHED = ".unfinished"
# Digests of files that were read before; removing it only costs time.
DIGESTS = Path("outputs/digests.sqlite")
SETTLED_NS, WAIT_S = 2_000_000_000, 5.0


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all, also after a power cut."""
    with writing(path) as file:
        file.write(content)


@contextmanager
def writing(path: Path) -> Iterator[IO[bytes]]:
    """A file to fill that takes the place of `path` once the block ends without error, also after a power cut."""
    unfinished = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}{UNFINISHED}")
    try:
        with unfinished.open("wb") as file:
            yield file
        move_whole(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def move_whole(source: Path, target: Path) -> None:
    """Put a finished file of the same file system in the place of `target`, whole also after a power cut."""
    sync(source)
    source.replace(target)
    sync(target.parent)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, would outlive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def only_one(lock: Path, refusal: str) -> Iterator[None]:
    """Hold a lock file within the block; a killed process releases it by itself.

    Raises InputError with `refusal`, at once, where another process holds it.
    """
    held = FileLock(lock, blocking=False)
    try:
        held.acquire()
    except Timeout:
        raise InputError(refusal) from None
    try:
        yield
    finally:
        # While it is still held, so that nobody else's is removed.
        lock.unlink(missing_ok=True)
        held.release()


def folder_digest(folder: Path, digest_of: Callable[[Path], str] | None = None) -> str:
    """sha256 over the names and contents of all files of a folder."""
    total = hashlib.sha256()
    for name, path in files_of(folder):
        total.update(f"{name}\0{(digest_of or file_digest)(path)}\n".encode())
    return total.hexdigest()


def content_digest(path: Path, is_full: bool = False) -> str:
    """`file_digest` or `folder_digest`; files that `cached_digests` knows are not read again unless `is_full`."""
    with cached_digests(is_full) as digest_of:
        return folder_digest(path, digest_of) if path.is_dir() else digest_of(path)


@contextmanager
def cached_digests(is_full: bool = False, cache: Path | None = None) -> Iterator[Callable[[Path], str]]:
    """`file_digest` that reads a file once, as long as its size, times and inode stay; with `is_full` always.

    Without a usable cache, or beside a process that holds it, files are read.
    """
    with ExitStack() as stack:
        database = None
        with suppress(OSError, sqlite3.Error):
            (cache or DIGESTS).parent.mkdir(parents=True, exist_ok=True)
            database = stack.enter_context(closing(sqlite3.connect(cache or DIGESTS, WAIT_S, isolation_level=None)))
            database.execute("PRAGMA synchronous = OFF")
            database.execute("CREATE TABLE IF NOT EXISTS digests (path PRIMARY KEY, state, digest)")

        def digest_of(path: Path) -> str:
            began, state = time.time_ns(), _state(path)
            key = str(path.resolve())
            if database and not is_full:
                with suppress(sqlite3.Error):
                    query = "SELECT digest FROM digests WHERE path = ? AND state = ?"
                    for (digest,) in database.execute(query, (key, state)):
                        return str(digest)
            digest = file_digest(path)
            # A file that was written just now could be written again without a later time, as in git's index.
            is_settled = path.stat().st_ctime_ns < began - SETTLED_NS
            if database and is_settled and _state(path) == state:
                with suppress(sqlite3.Error):
                    database.execute("INSERT OR REPLACE INTO digests VALUES (?, ?, ?)", (key, state, digest))
            return digest

        yield digest_of


def _state(path: Path) -> str:
    """What changes with a file's content; the time of its last change of any kind cannot be set by hand."""
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_dev} {status.st_ino}"


def files_of(folder: Path, pattern: str = "*") -> list[tuple[str, Path]]:
    """A folder's files, the same order on every machine, with their names within it."""
    found = sorted(path for path in folder.rglob(pattern) if path.is_file())
    return [(path.relative_to(folder).as_posix(), path) for path in found]


def text_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: Path) -> str:
    """sha256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_md5(path: Path) -> str:
    """As DVC would hash it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A folder to fill that takes the place of `target` once the block ends without error."""
    scratch = target.with_name(f".{target.name}.unfinished")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        yield scratch
        if target.exists():
            shutil.rmtree(target)
        scratch.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
