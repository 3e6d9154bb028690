"""Read the frames of many clips: shards of some hundred clips and one index, by clip id.

shard-00000.safetensors   one uint8 tensor a clip, and the shard's own part of the index in its header
index.parquet             one row a clip, also for those that failed
settings.json             the frame settings, and the digest of the decoding code, that all of it was made with
part-<hash>.safetensors   a shard that has no number yet; gone when the store is closed
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from cinetune.errors import InputError
from cinetune.frames.limits import PASSING
from cinetune.frames.sampling import SCHEMA_VERSION, ClipFrames, FrameSettings, identity
from cinetune.task.questions import ClipQuestions

logger = logging.getLogger(__name__)

REMEDY = "run the frames stage"
# The modules that the decoding process runs: a change there may change frames, so they are decoded again.
DECODING_CODE = (
    "decoding", "limits", "sampling", "worker",
    "video.cuts", "video.fragments", "video.h264", "video.playhead", "video.timeline",
)  # fmt: skip
INDEX_SCHEMA = pa.schema(
    [
        ("clip_id", pa.string()),
        ("shard", pa.string()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("times", pa.list_(pa.float64())),
        ("cuts", pa.list_(pa.float64())),
        ("duration_s", pa.float64()),
        ("clip_sha256", pa.string()),
        ("frames_sha256", pa.string()),
        ("note", pa.string()),
        ("settings", pa.string()),
    ]
)


@dataclass(frozen=True)
class Entry:
    """What is known of one clip beside its pixels; times, cuts and duration in seconds.

    clip_sha256: of the file that was decoded, empty where there was none; frames_sha256: of the pixels, empty where
    there are none; note: what is special about the pictures.
    """

    clip_id: str
    status: str
    reason: str
    times: tuple[float, ...]
    cuts: tuple[float, ...]
    duration_s: float | None
    clip_sha256: str = ""
    frames_sha256: str = ""
    note: str = ""

    @property
    def is_ok(self) -> bool:
        return self.status == "ok"


class FrameStore:
    """A finished store, read only. Holds no open files: it can be given to other processes."""

    def __init__(self, root: Path, settings: FrameSettings, entries: dict[str, tuple[str, Entry]]) -> None:
        self._root = root
        self._entries = entries
        self.settings = settings

    @classmethod
    def open(cls, root: Path, expected: FrameSettings | None = None) -> FrameStore:
        """Raises InputError where a store is missing, unfinished, of another version or not of `expected` settings."""
        root = Path(root)
        settings = read_settings(root)
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
            entries[row["clip_id"]] = (shard, entry_of(row))
        if expected is not None:
            stored = settings.to_dict()
            for name, value in expected.to_dict().items():
                if stored[name] != value:
                    raise InputError(
                        f"the frames in {str(root)!r} were made with frames.{name}={stored[name]!r}, not {value!r}: "
                        "set it in params.yaml and run `dvc repro frames`."
                    )
        return cls(root, settings, entries)

    def with_frames(self, clips: Sequence[ClipQuestions]) -> list[ClipQuestions]:
        """The clips that can be seen. Logs how many cannot, and raises InputError where none can."""
        seen = [clip for clip in clips if clip.clip_id in self]
        if not seen:
            place = str(self._root)
            raise InputError(f"none of the {len(clips)} clips has frames in {place!r}: run `dvc repro frames`.")
        if len(seen) < len(clips):
            logger.warning("%d of %d clips have no frames and are left out.", len(clips) - len(seen), len(clips))
        return seen

    @property
    def clip_ids(self) -> list[str]:
        """Of the clips that have frames."""
        return [clip_id for clip_id, (_, entry) in self._entries.items() if entry.is_ok]

    @property
    def failures(self) -> dict[str, str]:
        """Why the other clips have none."""
        return {clip_id: entry.reason for clip_id, (_, entry) in self._entries.items() if not entry.is_ok}

    @property
    def passing_failures(self) -> dict[str, str]:
        """Those of them for which the machine was at fault, not the clip."""
        return {clip_id: entry.reason for clip_id, (_, entry) in self._entries.items() if entry.status in PASSING}

    def __contains__(self, clip_id: object) -> bool:
        return clip_id in self._entries and self._entries[clip_id][1].is_ok

    def __len__(self) -> int:
        return len(self.clip_ids)

    def read(self, clip_id: str) -> ClipFrames:
        """Raises InputError for a clip that is unknown, that failed, or whose shard is damaged."""
        if clip_id not in self._entries:
            raise InputError(f"clip {clip_id!r} is not among the frames in {str(self._root)!r}: {REMEDY}.")
        shard, entry = self._entries[clip_id]
        if not entry.is_ok or entry.duration_s is None:
            raise InputError(f"clip {clip_id!r} has no frames: {entry.reason}")
        try:
            with safe_open(self._root / shard, framework="numpy") as file:
                frames = file.get_tensor(clip_id)
        except (SafetensorError, OSError):
            raise InputError(f"{shard} in {str(self._root)!r} is missing or damaged: {REMEDY}.") from None
        return ClipFrames(frames, entry.times, entry.cuts, entry.duration_s, entry.note)


def plan(clips: Sequence[Any], shard_clips: int) -> list[list[Any]]:
    """The clips of each shard of a whole store."""
    return [list(clips[i : i + shard_clips]) for i in range(0, len(clips), shard_clips)]


def pack_shard(content: Iterable[tuple[Entry, np.ndarray | None]], settings: FrameSettings) -> bytes:
    """A shard's bytes. Its header has one key only, for several would come in another order each time."""
    content = list(content)
    tensors = {entry.clip_id: frames for entry, frames in content if frames is not None}
    header = {"settings": identity(settings), "code": code_digest(), "clips": [asdict(entry) for entry, _ in content]}
    return save(tensors, metadata={"index": json.dumps(header)})


def read_shard_index(path: Path, settings: FrameSettings, is_full: bool = False) -> list[Entry] | None:
    """None for a shard that is damaged or was made with other settings or code; `is_full`: pixels are checked too."""
    try:
        with safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {}).get("index", "{}"))
            if header.get("settings") != identity(settings) or header.get("code") != code_digest():
                return None
            entries = [entry_of(clip) for clip in header["clips"]]
            stored = {entry.clip_id: entry.frames_sha256 for entry in entries if entry.is_ok}
            if stored.keys() != set(file.keys()):
                return None
            if is_full and any(frames_digest(file.get_tensor(name)) != digest for name, digest in stored.items()):
                return None
    except (SafetensorError, OSError, json.JSONDecodeError):
        return None
    return entries


def frames_digest(frames: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(frames).data).hexdigest()


@cache
def code_digest() -> str:
    """sha256 over the code that decides which frames a clip gives."""
    total = hashlib.sha256()
    for name in DECODING_CODE:
        total.update(f"{name}\0".encode() + (Path(__file__).parent / f"{name.replace('.', '/')}.py").read_bytes())
    return total.hexdigest()


def entry_of(row: dict[str, Any]) -> Entry:
    """From an entry's fields as JSON or Parquet gives them."""
    return Entry(**{**row, "times": tuple(row["times"]), "cuts": tuple(row["cuts"]), "note": row.get("note") or ""})


def read_settings(root: Path) -> FrameSettings | None:
    """None where they are missing, damaged or of another schema version."""
    made_with = read_made_with(root)
    return made_with and made_with[0]


def read_made_with(root: Path) -> tuple[FrameSettings, str] | None:
    """`read_settings` and the digest of the code."""
    try:
        content = json.loads((root / "settings.json").read_text(encoding="utf-8"))
        if content.pop("schema_version") != SCHEMA_VERSION:
            return None
        code = content.pop("code")
        return FrameSettings(**content), code
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def shard_name(number: int) -> str:
    return f"shard-{number:05d}.safetensors"
