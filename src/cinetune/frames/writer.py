"""Add clips to a frame store: parts, written by any number of processes, and the store that they are joined to.

A part holds its share of the index itself, so it is there whole or not at all, and a run that was killed loses the
clips of one part. A clip is known by its file's content: another file under its name is another
clip. The same clips in the same order give the same bytes, however many runs or machines it took.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from safetensors import safe_open

from cinetune.errors import InputError
from cinetune.files import UNFINISHED, sync, text_digest, write_whole, writing
from cinetune.frames.sampling import SCHEMA_VERSION, ClipError, ClipFrames, FrameSettings, identity
from cinetune.frames.store import (
    INDEX_SCHEMA,
    Entry,
    code_digest,
    frames_digest,
    pack_shard,
    plan,
    read_made_with,
    read_shard_index,
    shard_name,
)

INDEX, SETTINGS = "index.parquet", "settings.json"
# File name of a shard or part, and what it says of a clip.
Place = tuple[str, Entry]


class PartWriter:
    """Writes parts of up to `shard_clips` clips into a store's folder, beside what others write there.

    Use as a context manager or call `flush`: without it, what was added since the last part is lost. Raises InputError
    for a folder whose frames were made with other settings or code.
    """

    def __init__(self, root: Path, settings: FrameSettings, shard_clips: int) -> None:
        self._root, self._settings, self._shard_clips = root, settings, shard_clips
        self._pending: list[tuple[Entry, np.ndarray | None]] = []
        if not (root / SETTINGS).exists():
            # Whoever else begins now writes the same.
            _write_settings(root, settings)
        if read_made_with(root) != (settings, code_digest()):
            raise InputError(f"{str(root)!r} holds frames made with other settings or code: name another folder.")

    def __enter__(self) -> PartWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.flush()

    def add(self, clip_id: str, result: ClipFrames | ClipError, clip_sha256: str = "") -> None:
        """Take a clip's frames, or why it has none. Frames replace an earlier failure, never the other way round."""
        if isinstance(result, ClipError):
            self._pending.append((Entry(clip_id, result.status, str(result), (), (), None, clip_sha256), None))
        else:
            frames = self._checked(clip_id, result.frames)
            digests = clip_sha256, frames_digest(frames)
            self._pending.append(
                (Entry(clip_id, "ok", "", result.times, result.cuts, result.duration_s, *digests, result.note), frames)
            )
        if len(self._pending) == self._shard_clips:
            self.flush()

    def flush(self) -> None:
        """Write what was added since the last part as one, though it be small."""
        if self._pending:
            name = text_digest("\n".join(entry.clip_id for entry, _ in self._pending))[:16]
            write_whole(self._root / f"part-{name}.safetensors", pack_shard(self._pending, self._settings))
            self._pending = []

    def _checked(self, clip_id: str, frames: np.ndarray) -> np.ndarray:
        size = self._settings.size
        expected = (self._settings.num_frames, size, size, 3)
        if frames.shape != expected or frames.dtype != np.uint8:
            raise InputError(
                f"clip {clip_id!r} has frames of {frames.dtype} {frames.shape}, not uint8 {expected}: "
                "decode it with the store's settings."
            )
        return np.ascontiguousarray(frames)


def prepare(root: Path, settings: FrameSettings) -> None:
    """Make a folder ready for frames of these settings, while nobody else writes there.

    Frames of other settings or code are removed, and what killed writers have left.
    """
    for leftover in root.glob(f"*{UNFINISHED}"):
        leftover.unlink()
    if read_made_with(root) != (settings, code_digest()):
        # The index first and the settings last: killed in between, the store counts as not there.
        for name in (INDEX, SETTINGS):
            (root / name).unlink(missing_ok=True)
        for shard in root.glob("*.safetensors"):
            shard.unlink()
        _write_settings(root, settings)


def done(root: Path, settings: FrameSettings, clips: Mapping[str, str], is_full: bool = False) -> set[str]:
    """Of the clips, by id with their files' digests, those that have frames; those that failed are tried again.

    `is_full`: shards whose pixels are not those that were written are removed.
    """
    shards = _read_shards(root, settings, is_full)
    if is_full:
        for path in root.glob("*.safetensors"):
            if path.name not in shards:
                path.unlink()
    return {clip_id for clip_id, (_, entry) in _latest(shards, clips).items() if entry.is_ok}


def join(root: Path, settings: FrameSettings, shard_clips: int, clips: Mapping[str, str]) -> None:
    """Make a store of all parts: numbered shards with these clips in this order, and the index.

    clips: ids with their files' digests. Others are dropped, so that the bytes do not depend on how many runs it
    took. One process at a time, and nobody may write parts meanwhile.
    """
    prepare(root, settings)
    shards = _read_shards(root, settings)
    latest = _latest(shards, clips)
    wanted = [latest[clip_id] for clip_id in clips if clip_id in latest]
    planned = {shard_name(number): chunk for number, chunk in enumerate(plan(wanted, shard_clips))}
    changed = {name: chunk for name, chunk in planned.items() if shards.get(name) != [entry for _, entry in chunk]}
    surplus = [path for path in root.glob("*.safetensors") if path.name not in planned]
    for name, chunk in changed.items():
        _prepare_shard(root / f"{name}{UNFINISHED}", chunk, shards, settings)
    if changed or surplus:
        # From here to the new index the store is between two states, and must not be opened.
        (root / INDEX).unlink(missing_ok=True)
    for name in changed:
        (root / f"{name}{UNFINISHED}").replace(root / name)
    for path in surplus:
        path.unlink()
    sync(root)
    _write_index(root, settings, planned)


def _write_settings(root: Path, settings: FrameSettings) -> None:
    root.mkdir(parents=True, exist_ok=True)
    content = {"schema_version": SCHEMA_VERSION, "code": code_digest(), **settings.to_dict()}
    write_whole(root / SETTINGS, (json.dumps(content, indent=2) + "\n").encode())


def _read_shards(root: Path, settings: FrameSettings, is_full: bool = False) -> dict[str, list[Entry]]:
    """The entries of every usable shard and part, by file name."""
    # Parts last: what they say is newer.
    paths = (*sorted(root.glob("shard-*.safetensors")), *sorted(root.glob("part-*.safetensors")))
    found = ((path.name, read_shard_index(path, settings, is_full)) for path in paths)
    return {name: entries for name, entries in found if entries is not None}


def _latest(shards: dict[str, list[Entry]], clips: Mapping[str, str]) -> dict[str, Place]:
    """Where each clip with this content is: frames win over a failure, then what came later.

    A clip whose file is gone, and so has no digest, keeps its frames: there is nothing to replace them by.
    """
    latest: dict[str, Place] = {}
    for name, entries in shards.items():
        for entry in entries:
            known, digest = latest.get(entry.clip_id), clips.get(entry.clip_id)
            if digest != entry.clip_sha256 and not (digest == "" and entry.is_ok):
                continue
            if known is None or entry.is_ok or not known[1].is_ok:
                latest[entry.clip_id] = (name, entry)
    return latest


def _prepare_shard(path: Path, chunk: Sequence[Place], shards: dict[str, list[Entry]], settings: FrameSettings) -> None:
    """The bytes of a shard of these clips under another name: those of a part that is the same, or packed anew."""
    source = chunk[0][0]
    if shards[source] == [entry for _, entry in chunk]:
        with suppress(OSError):
            os.link(path.parent / source, path)
            return
    content = [(entry, _frames(path.parent / name, entry)) for name, entry in chunk]
    write_whole(path, pack_shard(content, settings))


def _frames(shard: Path, entry: Entry) -> np.ndarray | None:
    if not entry.is_ok:
        return None
    with safe_open(shard, framework="numpy") as file:
        return file.get_tensor(entry.clip_id)


def _write_index(root: Path, settings: FrameSettings, planned: dict[str, list[Place]]) -> None:
    rows = [
        asdict(entry) | {"shard": shard, "settings": identity(settings)}
        for shard, chunk in planned.items()
        for _, entry in chunk
    ]
    with writing(root / INDEX) as file:
        pyarrow.parquet.write_table(pa.Table.from_pylist(rows, schema=INDEX_SCHEMA), file)
