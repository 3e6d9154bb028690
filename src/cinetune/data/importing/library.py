"""The videos of a folder, found by the names that rows have for them."""

from __future__ import annotations

import math
import os
import re
import unicodedata
from collections.abc import Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from cinetune.data import subtitles
from cinetune.data.importing.records import Record, number_text
from cinetune.errors import InputError
from cinetune.files import text_digest
from cinetune.frames.images.listing import SUFFIXES as IMAGE_SUFFIXES

SUFFIXES = (".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi")
MAX_SLUG_CHARS, DIGEST_DIGITS = 40, 10


class Video(NamedTuple):
    """A file, or a folder of images; `name` is its path in the library, the same on every machine."""

    path: Path
    name: str
    is_folder: bool


class Library:
    """The files below a folder; nothing outside it is ever named."""

    def __init__(self, root: Path) -> None:
        """Raises InputError where there is no folder."""
        if not root.is_dir():
            raise InputError(f"videos {str(root)!r} is no folder: name the one that holds the videos.")
        self._root, self._told = root.resolve(), str(root)
        self._found: dict[str, Video | str] = {}

    def find(self, name: str) -> Video:
        """By path, with or without its suffix, or by a file's name alone where there is one of that name.

        Raises InputError for what is not there, leads outside or is ambiguous.
        """
        if name not in self._found:
            try:
                self._found[name] = self._find(name)
            except InputError as error:
                self._found[name] = str(error)
        found = self._found[name]
        if isinstance(found, str):
            raise InputError(found)
        return found

    def _find(self, name: str) -> Video:
        for form in dict.fromkeys((name, name.replace("\\", "/"))):
            for spelled in dict.fromkeys((form, *(unicodedata.normalize(kind, form) for kind in ("NFC", "NFD")))):
                for suffix in ("", *SUFFIXES):
                    if video := self._at(f"{spelled}{suffix}", name):
                        return video
        alike = self._by_name.get(unicodedata.normalize("NFC", name), [])
        if len(alike) > 1:
            raise InputError(f"video {name!r} may be {alike[0]!r} or {alike[1]!r}: write its path")
        video = self._at(alike[0], name) if alike else None
        if video is None:
            raise InputError(f"video {name!r} does not exist in {self._told!r}")
        return video

    def _at(self, relative: str, name: str) -> Video | None:
        path = self._root / relative
        try:
            if not path.exists():
                return None
            path = path.resolve(strict=True)
        except (OSError, RuntimeError, ValueError):
            raise InputError(f"video {name!r} cannot be opened") from None
        if not path.is_relative_to(self._root):
            raise InputError(f"video {name!r} is outside {self._told!r}: move it there")
        if path == self._root:
            raise InputError(f"video {name!r} is no video")
        is_folder = path.is_dir()
        if is_folder:
            if not any(entry.suffix.lower() in IMAGE_SUFFIXES for entry in path.iterdir()):
                raise InputError(f"video {name!r} is a folder without images")
        elif not path.is_file():
            raise InputError(f"video {name!r} is not a regular file")
        elif path.stat().st_size == 0:
            raise InputError(f"video {name!r} is empty")
        return Video(path, unicodedata.normalize("NFC", path.relative_to(self._root).as_posix()), is_folder)

    def _file(self, name: str, what: str) -> Path:
        """Any other file below the folder. Raises InputError for one that is not there or leads outside."""
        try:
            path = (self._root / name).resolve(strict=True)
        except (OSError, RuntimeError, ValueError):
            raise InputError(f"{what} {name!r} do not exist in {self._told!r}") from None
        if not path.is_relative_to(self._root) or not path.is_file():
            raise InputError(f"{what} {name!r} are no file in {self._told!r}")
        return path

    def words(self, record: Record) -> str:
        """A record's subtitles, read from the file below the folder where it names one."""
        if not record.subtitles.lower().endswith(subtitles.SUFFIXES) or "\n" in record.subtitles:
            return record.subtitles
        path = self._file(record.subtitles, "subtitles")
        return subtitles.read_file(path, record.start_s, record.end_s or math.inf)

    def count_others(self, used: Collection[Path]) -> int:
        """How many videos there are beside these."""
        paths = {relative for alike in self._by_name.values() for relative in alike}
        return sum((self._root / relative).resolve() not in used for relative in paths)

    @cached_property
    def _by_name(self) -> Mapping[str, list[str]]:
        """Paths of videos and folders of images, by their names and by those without suffix."""
        found: dict[str, list[str]] = {}
        for folder, _, names in os.walk(self._root):
            suffixes = {name: Path(name).suffix.lower() for name in names}
            paths = [Path(folder, name) for name, suffix in suffixes.items() if suffix in SUFFIXES]
            if set(suffixes.values()) & set(IMAGE_SUFFIXES):
                paths.append(Path(folder))
            for path in paths:
                relative = path.relative_to(self._root).as_posix()
                for key in {path.name, path.stem}:
                    found.setdefault(unicodedata.normalize("NFC", key), []).append(relative)
        return {name: sorted(paths) for name, paths in found.items()}


def clip_id(name: str, start_s: float, end_s: float) -> str:
    """Of a video, or a cut of it: readable, one for each, the same in every import."""
    slug = re.sub(r"[^A-Za-z0-9_-]+", "-", Path(name).stem).strip("-")[:MAX_SLUG_CHARS]
    cut = f" {number_text(start_s)}-{number_text(end_s)}" if start_s or end_s else ""
    return f"{slug or 'clip'}-{text_digest(name + cut)[:DIGEST_DIGITS]}"
