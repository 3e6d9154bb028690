"""A digest is that of what stands in a file, however little of it is read again."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from cinetune import files

pytestmark = pytest.mark.experience


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Names of the files that were read in full; files count as settled at once."""
    names: list[str] = []
    whole: Callable[[Path], str] = files.file_digest

    def file_digest(path: Path) -> str:
        names.append(path.name)
        return whole(path)

    monkeypatch.setattr(files, "file_digest", file_digest)
    monkeypatch.setattr(files, "DIGESTS", tmp_path / "cache/digests.sqlite")
    monkeypatch.setattr(files, "SETTLED_NS", 0)
    return names


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    (made / "below").mkdir(parents=True)
    # The changed byte lies behind the first megabytes.
    (made / "model.safetensors").write_bytes(bytes(3 << 20))
    (made / "below/config.json").write_text("{}")
    return made


def flip(path: Path) -> None:
    """The last bit, in place, with the size and the time of change left as they were."""
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_an_unchanged_file_is_read_once(read: list[str], folder: Path) -> None:
    first = files.content_digest(folder)
    assert sorted(read) == ["config.json", "model.safetensors"]
    assert files.content_digest(folder) == first == files.folder_digest(folder, files.file_digest)
    assert len(read) == 4
    assert files.content_digest(folder, is_full=True) == first and len(read) == 6


def test_a_flipped_bit_changes_it_though_size_and_time_are_kept(read: list[str], folder: Path) -> None:
    first = files.content_digest(folder)
    flip(folder / "model.safetensors")
    assert files.content_digest(folder) != first
    assert read.count("model.safetensors") == 2 and read.count("config.json") == 1


def test_a_file_that_takes_another_one_s_place_is_read(read: list[str], folder: Path) -> None:
    first = files.content_digest(folder)
    other = folder.parent / "other"
    other.write_bytes(bytes(3 << 20)[:-1] + b"\1")
    other.replace(folder / "model.safetensors")
    assert files.content_digest(folder) != first


def test_a_file_that_was_written_just_now_is_read_again(
    read: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "SETTLED_NS", 60_000_000_000)
    for _ in range(2):
        files.content_digest(folder / "model.safetensors")
    assert read == ["model.safetensors"] * 2


def test_a_cache_that_cannot_be_used_only_costs_time(read: list[str], folder: Path) -> None:
    whole = files.content_digest(folder)
    files.DIGESTS.write_bytes(b"no database" * 1000)
    assert files.content_digest(folder) == whole
    files.DIGESTS.unlink()
    files.DIGESTS.mkdir()
    assert files.content_digest(folder) == whole


def test_a_cache_that_another_process_holds_is_passed_by(
    read: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "WAIT_S", 0.1)
    whole = files.content_digest(folder)
    holder = sqlite3.connect(files.DIGESTS, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    assert files.content_digest(folder) == whole
    holder.close()


def test_threads_may_share_it(read: list[str], folder: Path) -> None:
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(files.content_digest(folder))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and len(set(found)) == 1
