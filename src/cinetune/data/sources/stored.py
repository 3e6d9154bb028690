"""Videos that others have downloaded: files and tar shards, in the layouts of video2dataset, yt-dlp and CinePile.

A file is known by the json beside it (video2dataset's `.json`, yt-dlp's `.info.json`), or by the id in its name:
`<id>.mp4`, `Title [id].mp4`, `Title-<id>.mp4`, `<film>_watch?v=<id>.mp4`.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import tarfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from cinetune.data import links
from cinetune.errors import InputError

logger = logging.getLogger(__name__)

SUFFIXES = {".mp4", ".m4v", ".mov", ".webm", ".mkv"}
INFO_SUFFIXES = (".info.json", ".json")
ID_LENGTH = 11
ID_IN_NAME = re.compile(r"(?:[\[(]|v(?:=|%3D))([A-Za-z0-9_-]{11})(?![A-Za-z0-9_-])")
BEFORE_ID = set(" -_.=")
COPIED_BYTES = 1 << 20


@dataclass(frozen=True)
class StoredVideo:
    """A clip's video: a file, or the bytes from `offset` on of a tar shard; `duration_s` is what the json announces."""

    path: Path
    offset: int | None = None
    size: int = 0
    duration_s: float | None = None

    def put(self, target: Path) -> None:
        """A hard link where that is possible, so that no byte is stored twice; else a copy."""
        if self.offset is None:
            try:
                os.link(self.path.resolve(), target)
            except OSError:
                shutil.copyfile(self.path, target)
            return
        with self.path.open("rb") as shard, target.open("wb") as file:
            shard.seek(self.offset)
            left = self.size
            while left and (block := shard.read(min(left, COPIED_BYTES))):
                file.write(block)
                left -= len(block)


@dataclass
class StoredVideos:
    """What was found: the videos of each clip, and how many are of no clip that was asked for."""

    by_clip: dict[str, list[StoredVideo]] = field(default_factory=dict)
    num_others: int = 0

    def add(self, name: str, video: StoredVideo, info: bytes | None, wanted: Collection[str]) -> None:
        about = _read_info(info)
        clip_id = next((found for found in (*_ids_of(about), *_ids_in(name)) if found in wanted), None)
        if clip_id is None:
            self.num_others += 1
            return
        duration_s = about.get("duration")
        if isinstance(duration_s, int | float):
            video = replace(video, duration_s=float(duration_s))
        self.by_clip.setdefault(clip_id, []).append(video)

    def told(self, folder: Path, num_clips: int) -> str:
        """What was found in a folder, and what was not, as one sentence."""
        num_found = len(self.by_clip)
        others = f"{self.num_others} videos there are of no clip that is asked for"
        return f"{num_found} of {num_clips} clips are in {folder}, {num_clips - num_found} are not; {others}."


def find(folder: Path | None, wanted: Collection[str]) -> StoredVideos:
    """The videos of the wanted clips below a folder. Each tar shard is read once, as far as it goes."""
    found = StoredVideos()
    paths = sorted(path for path in folder.rglob("*") if path.is_file()) if folder and wanted else []
    for path in (path for path in paths if path.suffix.lower() in SUFFIXES):
        beside = (path.with_name(path.stem + suffix) for suffix in INFO_SUFFIXES)
        info = next((other.read_bytes() for other in beside if other.is_file()), None)
        found.add(path.stem, StoredVideo(path), info, wanted)
    for path in (path for path in paths if path.suffix.lower() == ".tar"):
        for name, video, info in _shard_videos(path):
            found.add(name, video, info, wanted)
    return found


def _shard_videos(path: Path) -> Iterator[tuple[str, StoredVideo, bytes | None]]:
    """Name, place and json of each video in a shard; of one that is cut off those before the cut."""
    places: dict[str, tuple[int, int]] = {}
    num_bytes = path.stat().st_size
    try:
        with tarfile.open(path, "r:") as shard:
            for member in shard:
                if member.isreg() and not member.issparse() and member.offset_data + member.size <= num_bytes:
                    places[member.name] = (member.offset_data, member.size)
    except tarfile.TarError:
        # Its other clips count as not downloaded, and are fetched.
        logger.warning("download: %s is no complete tar file, %d files in it can be read.", path, len(places))
    with path.open("rb") as content:
        for name, (offset, size) in sorted(places.items()):
            video = PurePosixPath(name)
            if video.suffix.lower() not in SUFFIXES:
                continue
            beside = (str(video.with_name(video.stem + suffix)) for suffix in INFO_SUFFIXES)
            info = None
            for other in (other for other in beside if other in places):
                content.seek(places[other][0])
                info = content.read(places[other][1])
                break
            yield video.stem, StoredVideo(path, offset, size), info


def _read_info(content: bytes | None) -> dict[str, Any]:
    try:
        about = json.loads(content) if content is not None else {}
    except (ValueError, RecursionError):
        return {}
    # Else it is some other program's json.
    return about if isinstance(about, dict) else {}


def _ids_of(about: dict[str, Any]) -> Iterator[str]:
    for name in ("url", "webpage_url", "original_url"):
        try:
            yield links.read_link(about.get(name)).clip_id
        except InputError:
            continue
    yield from (value for name in ("clip_id", "videoID", "id") if isinstance(value := about.get(name), str))


def _ids_in(name: str) -> Iterator[str]:
    yield name
    yield from ID_IN_NAME.findall(name)
    if len(name) > ID_LENGTH and name[-ID_LENGTH - 1] in BEFORE_ID:
        yield name[-ID_LENGTH:]
