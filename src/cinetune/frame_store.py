"""Frames of many clips on disk: shards of some hundred clips and one index, read by clip id.

    shard-00000.safetensors   one uint8 tensor a clip, and the shard's own part of the index in its header
    index.parquet             one row a clip, also for those that failed
    settings.json             the frame settings that all of it was made with
    part-<hash>.safetensors   a shard that has no number yet; gone when the store is closed

A shard holds its part of the index itself, so it is there whole or not at all, and a run that was killed
loses the clips of one shard. Several processes may write parts at once. The same clips in the same order give
the same bytes, however many runs or machines it took.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from cinetune.errors import InputError
from cinetune.frames import SCHEMA_VERSION, ClipError, ClipFrames, FrameSettings, identity

REMEDY = "run the frames stage"
INDEX_SCHEMA = pa.schema(
    [
        ("clip_id", pa.string()),
        ("shard", pa.string()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("times", pa.list_(pa.float64())),
        ("cuts", pa.list_(pa.float64())),
        ("duration_s", pa.float64()),
        ("settings", pa.string()),
    ]
)


@dataclass(frozen=True)
class _Entry:
    """What is known of one clip beside its pixels; times, cuts and duration in seconds."""

    clip_id: str
    status: str
    reason: str
    times: tuple[float, ...]
    cuts: tuple[float, ...]
    duration_s: float | None

    @property
    def is_ok(self) -> bool:
        return self.status == "ok"


class FrameStore:
    """A finished store, read only. Holds no open files: it can be given to other processes."""

    def __init__(self, root: Path, settings: FrameSettings, entries: dict[str, tuple[str, _Entry]]) -> None:
        self._root = root
        self._entries = entries
        self.settings = settings

    @classmethod
    def open(cls, root: Path) -> FrameStore:
        """Raises InputError, with the remedy, where a store is missing, unfinished or of another version."""
        root = Path(root)
        settings = _read_settings(root)
        if settings is None or not (root / "index.parquet").is_file():
            raise InputError(f"there are no frames in {str(root)!r}: {REMEDY}.")
        try:
            table = pyarrow.parquet.read_table(root / "index.parquet", schema=INDEX_SCHEMA)
        except (pa.ArrowException, OSError):
            raise InputError(f"the index of the frames in {str(root)!r} is damaged: {REMEDY}.") from None
        entries = {}
        for row in table.to_pylist():
            shard = row.pop("shard")
            if row.pop("settings") != identity(settings):
                raise InputError(f"the frames in {str(root)!r} were made with several settings: {REMEDY}.")
            entries[row["clip_id"]] = (shard, _entry(row))
        return cls(root, settings, entries)

    @property
    def clip_ids(self) -> list[str]:
        """Of the clips that have frames."""
        return [clip_id for clip_id, (_, entry) in self._entries.items() if entry.is_ok]

    @property
    def failures(self) -> dict[str, str]:
        """Why the other clips have none."""
        return {clip_id: entry.reason for clip_id, (_, entry) in self._entries.items() if not entry.is_ok}

    def __contains__(self, clip_id: object) -> bool:
        return clip_id in self._entries and self._entries[clip_id][1].is_ok

    def __len__(self) -> int:
        return len(self.clip_ids)

    def read(self, clip_id: str) -> ClipFrames:
        """Raises InputError for a clip that is unknown, that failed, or whose shard is damaged."""
        if clip_id not in self._entries:
            raise InputError(f"clip {clip_id!r} is not among the frames in {str(self._root)!r}: {REMEDY}.")
        shard, entry = self._entries[clip_id]
        if not entry.is_ok:
            raise InputError(f"clip {clip_id!r} has no frames: {entry.reason}")
        try:
            with safe_open(self._root / shard, framework="numpy") as file:
                frames = file.get_tensor(clip_id)
        except (SafetensorError, OSError):
            raise InputError(f"{shard} in {str(self._root)!r} is missing or damaged: {REMEDY}.") from None
        return ClipFrames(frames, entry.times, entry.cuts, entry.duration_s)


def plan(clips: Sequence[Any], shard_clips: int) -> list[list[Any]]:
    """The clips of each shard of a whole store."""
    return [list(clips[i : i + shard_clips]) for i in range(0, len(clips), shard_clips)]


class FrameStoreWriter:
    """Adds clips to a store, new or begun before; a store made with other settings is emptied first.

    Use as a context manager or call `close`: without it, what was added since the last full shard is lost, and
    nothing that was added shows in the index. One writer at a time, but for those that are shared: they leave what
    others do alone, call `flush` and never `close`, and raise InputError for a store made with other settings.
    """

    def __init__(self, root: Path, settings: FrameSettings, shard_clips: int, is_shared: bool = False) -> None:
        self._root = Path(root)
        self._settings = settings
        self._shard_clips = shard_clips
        self._root.mkdir(parents=True, exist_ok=True)
        if is_shared:
            self._join()
        else:
            for leftover in self._root.glob("*.unfinished"):
                leftover.unlink()
            if _read_settings(self._root) != settings:
                self._empty()
        self._shards = self._read_shards(is_shared)
        self._pending: list[tuple[_Entry, np.ndarray | None]] = []

    def __enter__(self) -> FrameStoreWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()

    @property
    def done(self) -> set[str]:
        """Clips that have frames; those that failed are not among them, to be tried again."""
        stored = {entry.clip_id for entries in self._shards.values() for entry in entries if entry.is_ok}
        return stored | {entry.clip_id for entry, _ in self._pending if entry.is_ok}

    def add(self, clip_id: str, result: ClipFrames | ClipError) -> None:
        """Take a clip's frames, or why it has none. A later result of a clip replaces an earlier failure."""
        if isinstance(result, ClipError):
            self._pending.append((_Entry(clip_id, result.status, str(result), (), (), None), None))
        else:
            entry = _Entry(clip_id, "ok", "", result.times, result.cuts, result.duration_s)
            self._pending.append((entry, self._checked(clip_id, result.frames)))
        if len(self._pending) == self._shard_clips:
            self.flush()

    def flush(self) -> None:
        """Write what was added since the last shard as one, though it be small."""
        if self._pending:
            ids = "\n".join(entry.clip_id for entry, _ in self._pending)
            name = f"part-{hashlib.sha256(ids.encode()).hexdigest()[:16]}.safetensors"
            _write_whole(self._root / name, _pack(self._pending, self._settings))
            self._shards[name] = [entry for entry, _ in self._pending]
            self._pending = []

    def close(self, keep: Sequence[str] | None = None) -> None:
        """Write what is left and the index.

        With `keep`, clips that are not in it are dropped and the rest is laid out in its order, so that the
        bytes do not depend on how many runs it took.
        """
        self.flush()
        self._lay_out(list(self._latest()) if keep is None else keep)
        self._write_index()

    def _checked(self, clip_id: str, frames: np.ndarray) -> np.ndarray:
        size = self._settings.size
        expected = (self._settings.num_frames, size, size, 3)
        if frames.shape != expected or frames.dtype != np.uint8:
            raise InputError(
                f"clip {clip_id!r} has frames of {frames.dtype} {frames.shape}, not uint8 {expected}: "
                "decode it with the store's settings."
            )
        return np.ascontiguousarray(frames)

    def _empty(self) -> None:
        # The index first and the settings last: killed in between, the store counts as not there.
        (self._root / "index.parquet").unlink(missing_ok=True)
        (self._root / "settings.json").unlink(missing_ok=True)
        for shard in self._root.glob("*.safetensors"):
            shard.unlink()
        self._write_settings()

    def _join(self) -> None:
        if not (self._root / "settings.json").exists():
            # Whoever else begins now writes the same.
            self._write_settings()
        if _read_settings(self._root) != self._settings:
            raise InputError(f"{str(self._root)!r} holds frames made with other settings: name another folder.")

    def _write_settings(self) -> None:
        content = {"schema_version": SCHEMA_VERSION, **self._settings.to_dict()}
        _write_whole(self._root / "settings.json", (json.dumps(content, indent=2) + "\n").encode())

    def _read_shards(self, is_shared: bool) -> dict[str, list[_Entry]]:
        """The entries of every usable shard, by file name; other shards are removed, to be made again."""
        shards = {}
        # Parts last: what they say is newer.
        for path in (*sorted(self._root.glob("shard-*.safetensors")), *sorted(self._root.glob("part-*.safetensors"))):
            entries = _read_shard_index(path, self._settings)
            if entries is not None:
                shards[path.name] = entries
            elif not is_shared:
                path.unlink()
        return shards

    def _latest(self) -> dict[str, tuple[str, _Entry]]:
        """Shard and entry of each clip: frames win over a failure, then what came later."""
        latest: dict[str, tuple[str, _Entry]] = {}
        for name, entries in self._shards.items():
            for entry in entries:
                known = latest.get(entry.clip_id)
                if known is None or entry.is_ok or not known[1].is_ok:
                    latest[entry.clip_id] = (name, entry)
        return latest

    def _lay_out(self, keep: Sequence[str]) -> None:
        """Bring the shards into the form that one uninterrupted run over `keep` would have given them."""
        latest = self._latest()
        wanted = [latest[clip_id] for clip_id in dict.fromkeys(keep) if clip_id in latest]
        planned = {_shard_name(number): chunk for number, chunk in enumerate(plan(wanted, self._shard_clips))}
        changed = {
            name: chunk for name, chunk in planned.items() if self._shards.get(name) != [entry for _, entry in chunk]
        }
        surplus = [name for name in self._shards if name not in planned]
        if not changed and not surplus:
            return
        for name, chunk in changed.items():
            self._prepare(self._root / f"{name}.unfinished", chunk)
        # From here to the new index the store is between two states, and must not be opened.
        (self._root / "index.parquet").unlink(missing_ok=True)
        for name in changed:
            (self._root / f"{name}.unfinished").replace(self._root / name)
        for name in surplus:
            (self._root / name).unlink()
        _sync_folder(self._root)
        self._shards = {name: [entry for _, entry in chunk] for name, chunk in planned.items()}

    def _prepare(self, path: Path, chunk: Sequence[tuple[str, _Entry]]) -> None:
        """The bytes of a shard of these clips under another name: those of a part that is the same, or packed anew."""
        source = chunk[0][0]
        if self._shards[source] == [entry for _, entry in chunk]:
            with suppress(OSError):
                os.link(self._root / source, path)
                return
        content = [(entry, self._frames(shard, entry)) for shard, entry in chunk]
        _write_whole(path, _pack(content, self._settings))

    def _frames(self, shard: str, entry: _Entry) -> np.ndarray | None:
        if not entry.is_ok:
            return None
        with safe_open(self._root / shard, framework="numpy") as file:
            return file.get_tensor(entry.clip_id)

    def _write_index(self) -> None:
        settings = identity(self._settings)
        rows = [asdict(entry) | {"shard": shard, "settings": settings} for shard, entry in self._latest().values()]
        sink = pa.BufferOutputStream()
        pyarrow.parquet.write_table(pa.Table.from_pylist(rows, schema=INDEX_SCHEMA), sink)
        _write_whole(self._root / "index.parquet", sink.getvalue().to_pybytes())


def _pack(content: Iterable[tuple[_Entry, np.ndarray | None]], settings: FrameSettings) -> bytes:
    """A shard's bytes. Its header has one key only, for several would come in another order each time."""
    content = list(content)
    tensors = {entry.clip_id: frames for entry, frames in content if frames is not None}
    header = {"settings": identity(settings), "clips": [asdict(entry) for entry, _ in content]}
    return save(tensors, metadata={"index": json.dumps(header)})


def _read_shard_index(path: Path, settings: FrameSettings) -> list[_Entry] | None:
    """None for a shard that is damaged or was made with other settings."""
    try:
        with safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {}).get("index", "{}"))
            stored = set(file.keys())
    except (SafetensorError, OSError, json.JSONDecodeError):
        return None
    if header.get("settings") != identity(settings):
        return None
    entries = [_entry(clip) for clip in header["clips"]]
    return entries if {entry.clip_id for entry in entries if entry.is_ok} == stored else None


def _entry(row: dict[str, Any]) -> _Entry:
    return _Entry(**{**row, "times": tuple(row["times"]), "cuts": tuple(row["cuts"])})


def _read_settings(root: Path) -> FrameSettings | None:
    """None where they are missing, damaged or of another schema version."""
    try:
        content = json.loads((root / "settings.json").read_text(encoding="utf-8"))
        if content.pop("schema_version") != SCHEMA_VERSION:
            return None
        return FrameSettings(**content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _shard_name(number: int) -> str:
    return f"shard-{number:05d}.safetensors"


def _write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all, also after a power cut."""
    unfinished = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.unfinished")
    try:
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError:
        with suppress(OSError):
            unfinished.unlink()
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
