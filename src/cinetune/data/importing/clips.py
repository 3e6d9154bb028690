"""The clips of a data folder: the videos that rows name, linked, copied or cut under the ids that they have there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from cinetune.data import links
from cinetune.data.importing.cuts import Cutter
from cinetune.data.importing.library import Library, Video, clip_id
from cinetune.data.importing.records import Record
from cinetune.data.manifest import ClipRecord, Manifest
from cinetune.errors import InputError
from cinetune.frames.images import listing
from cinetune.frames.images.listing import SUFFIXES as IMAGE_SUFFIXES
from cinetune.frames.limits import Refusal

# What brings the videos of links here: by address the file, or why there is none.
Fetch = Callable[[Sequence[links.Link]], Mapping[str, Path | str]]
Reject = Callable[[int, str], None]


class Placed(NamedTuple):
    """A record whose clip is there."""

    record: Record
    video: Video
    clip_id: str


class Clips:
    """A folder of clips that is filled from a library."""

    def __init__(self, library: Library, folder: Path, cutter: Cutter, images_per_s: float) -> None:
        self._library, self._folder, self._cutter, self._images_per_s = library, folder, cutter, images_per_s
        self._videos: dict[str, Video] = {}
        self._failed: dict[str, str] = {}
        self._durations: dict[Path, float] = {}

    def place(self, records: Sequence[Record], fetch: Fetch, reject: Reject) -> Iterator[Placed]:
        """The records whose clips could be put there; each other one is rejected."""
        self._folder.mkdir(parents=True)
        linked = self._links(records)
        fetched = fetch(list({link.url: link for link in linked.values()}.values())) if linked else {}
        for record in records:
            try:
                link = linked.get(record.video)
                video = self._library.find(record.video) if link is None else _of_link(link, fetched[link.url])
                yield Placed(record._replace(subtitles=self._library.words(record)), video, self._put(video, record))
            except InputError as error:
                reject(record.number, str(error))

    def keep(self, clip_ids: set[str]) -> None:
        """Remove those that nothing is asked about after all."""
        for name in self._videos.keys() - clip_ids:
            video = self._videos.pop(name)
            path = self._path(name, video)
            shutil.rmtree(path) if video.is_folder else path.unlink()

    def num_others(self) -> int:
        """How many videos of the library are no clip here."""
        return self._library.count_others({video.path for video in self._videos.values()})

    def write_manifest(self, folder: Path, groups: Mapping[str, str]) -> None:
        """clips.parquet, as for clips that were downloaded."""
        manifest = Manifest(folder)
        for name, video in self._videos.items():
            manifest.records[name] = ClipRecord(name, video.name, groups[name], "ok", "", 1, None, True)
        manifest.save()

    def _links(self, records: Sequence[Record]) -> dict[str, links.Link]:
        """By name the addresses among them; what is neither file nor address is the library's to refuse."""
        found = {}
        for name in {record.video for record in records}:
            with suppress(InputError):
                self._library.find(name)
                continue
            with suppress(InputError):
                link = links.read_link(name)
                if link.kind != "file":
                    found[name] = link
        return found

    def _put(self, video: Video, record: Record) -> str:
        """The clip's id, once it is there. Raises InputError where it cannot be."""
        name = clip_id(video.name, record.start_s, record.end_s)
        if name in self._failed:
            raise InputError(self._failed[name])
        if name not in self._videos:
            try:
                self._fill(self._path(name, video), video, record)
            except InputError as error:
                self._failed[name] = f"video {record.video!r} {error}"
                raise InputError(self._failed[name]) from None
            self._videos[name] = video
        return name

    def _path(self, name: str, video: Video) -> Path:
        return self._folder / (name if video.is_folder else f"{name}.mp4")

    def _fill(self, target: Path, video: Video, record: Record) -> None:
        is_part = bool(record.start_s or record.end_s)
        if video.is_folder:
            images = self._images(video.path, record) if is_part else sorted(video.path.iterdir())
            target.mkdir()
            for image in images:
                if image.suffix.lower() in IMAGE_SUFFIXES and image.is_file():
                    _link(image, target / image.name)
        elif is_part:
            duration_s = self._duration(video.path)
            if record.start_s >= duration_s:
                raise InputError(f"lasts {duration_s:.1f} s, and start is {record.start_s:g} s")
            end_s = min(record.end_s or duration_s, duration_s)
            self._cutter.cut(video.path, record.start_s, end_s, target)
        else:
            _link(video.path, target)

    def _images(self, folder: Path, record: Record) -> Sequence[Path]:
        try:
            return listing.cut(listing.read(folder, self._images_per_s), record.start_s, record.end_s).paths
        except Refusal as refusal:
            raise InputError(str(refusal)) from None

    def _duration(self, path: Path) -> float:
        if path not in self._durations:
            self._durations[path] = self._cutter.measure(path)
        return self._durations[path]


def _of_link(link: links.Link, fetched: Path | str) -> Video:
    if isinstance(fetched, str):
        raise InputError(f"video {link.url!r} {fetched}")
    return Video(fetched, link.url, is_folder=False)


def _link(source: Path, target: Path) -> None:
    """A hard link where that is possible, so that no byte is stored twice; else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
