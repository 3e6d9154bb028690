"""Clips that were downloaded with video2dataset: folders or tar shards of mp4 beside json."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from cinetune import links
from cinetune.errors import InputError


@dataclass(frozen=True)
class Stored:
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
            shutil.copyfileobj(shard.extractfile(self.member), file)


def find(folder: Path) -> dict[str, Stored]:
    """Videos by clip id. Raises InputError for a folder that is not there; a shard that cannot be read is left out."""
    if not folder.is_dir():
        raise InputError(
            f"videos {str(folder)!r} is no folder: name one that video2dataset has filled, or leave it out."
        )
    found: dict[str, Stored] = {}
    for path in sorted(folder.rglob("*.json")):
        video = path.with_suffix(".mp4")
        if video.is_file():
            found |= _entry(path.read_bytes(), Stored(video))
    for path in sorted(folder.rglob("*.tar")):
        try:
            found |= dict(_shard_entries(path))
        except tarfile.TarError:
            # Its clips count as not downloaded, and are fetched.
            print(f"download: {path} is no whole tar file and is left out.")
    return found


def _shard_entries(path: Path) -> Iterator[tuple[str, Stored]]:
    with tarfile.open(path) as shard:
        names = {member.name for member in shard if member.isreg()}
        for name in sorted(names):
            video = str(PurePosixPath(name).with_suffix(".mp4"))
            if name.endswith(".json") and video in names:
                yield from _entry(_read(shard, name), Stored(path, video)).items()


def _read(shard: tarfile.TarFile, name: str) -> bytes:
    member: BinaryIO = shard.extractfile(name)
    return member.read()


def _entry(content: bytes, stored: Stored) -> dict[str, Stored]:
    try:
        return {links.read_link(json.loads(content)["url"]).clip_id: stored}
    except (ValueError, KeyError, TypeError):
        # Some other program's json.
        return {}
