"""Clips that were downloaded with video2dataset: folders or tar shards of mp4 beside json."""

from __future__ import annotations

import json
import logging
import os
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from cinetune.data import links
from cinetune.errors import InputError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoredVideo:
    """A clip's video: a file, or a member of a tar shard."""

    path: Path
    member: str = ""

    def put(self, target: Path) -> None:
        """A hard link where that is possible, so that no byte is stored twice; else a copy."""
        if not self.member:
            try:
                os.link(self.path.resolve(), target)
            except OSError:
                shutil.copyfile(self.path, target)
            return
        with tarfile.open(self.path) as shard, target.open("wb") as file:
            shutil.copyfileobj(_member(shard, self.member), file)


def find(folder: Path) -> dict[str, StoredVideo]:
    """Videos by clip id. Raises InputError for a folder that is not there; a shard that cannot be read is left out."""
    if not folder.is_dir():
        raise InputError(
            f"videos {str(folder)!r} is no folder: name one that video2dataset has filled, or leave it out."
        )
    found: dict[str, StoredVideo] = {}
    for path in sorted(folder.rglob("*.json")):
        video = path.with_suffix(".mp4")
        if video.is_file():
            found |= _entry(path.read_bytes(), StoredVideo(video))
    for path in sorted(folder.rglob("*.tar")):
        try:
            found |= dict(_shard_entries(path))
        except tarfile.TarError:
            # Its clips count as not downloaded, and are fetched.
            logger.warning("download: %s is not a complete tar file and is left out.", path)
    return found


def _shard_entries(path: Path) -> Iterator[tuple[str, StoredVideo]]:
    with tarfile.open(path) as shard:
        names = {member.name for member in shard if member.isreg()}
        for name in sorted(names):
            video = str(PurePosixPath(name).with_suffix(".mp4"))
            if name.endswith(".json") and video in names:
                yield from _entry(_member(shard, name).read(), StoredVideo(path, video)).items()


def _member(shard: tarfile.TarFile, name: str) -> IO[bytes]:
    """Of a regular file; KeyError where the shard has none of that name."""
    file = shard.extractfile(name)
    if file is None:
        raise KeyError(name)
    return file


def _entry(content: bytes, stored: StoredVideo) -> dict[str, StoredVideo]:
    try:
        return {links.read_link(json.loads(content)["url"]).clip_id: stored}
    except (ValueError, KeyError, TypeError):
        # Some other program's json.
        return {}
