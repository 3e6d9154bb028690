"""Downloads from a server on loopback."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cinetune import params as params_module
from cinetune.data import links
from cinetune.data.download import Downloader
from cinetune.data.intake import ClipRequest
from cinetune.data.manifest import ClipRecord, Manifest
from cinetune.frames.encoding import encode
from cinetune.frames.limits import Limits

PARAMS = dataclasses.replace(
    params_module.load().download,
    workers=2, retries=1, pause_s=0.0, backoff_s=0.01, stall_s=1.0, timeout_s=4.0, max_megabytes=1, stop_after=100,
)  # fmt: skip


LIMITS = Limits.of(params_module.load().frames)


def clip(path: Path, seed: int = 0) -> bytes:
    """About 100 kB of film of two seconds."""
    rng = np.random.default_rng(seed)
    encode(path, rng.integers(0, 256, (24, 64, 64, 3), dtype=np.uint8), 12)
    return path.read_bytes()


def wanted(address: str, clip_id: str = "", root: Path | None = None) -> ClipRequest:
    link = links.read_link(address)
    return ClipRequest(clip_id or link.clip_id, link, root, "A Film (2001)")


def bring(
    folder: Path, clips: list[ClipRequest], again: str = "", stored: dict[str, Any] | None = None, **changed: Any
) -> dict[str, ClipRecord]:
    """One run over these clips; what clips.parquet says afterwards."""
    folder.mkdir(exist_ok=True)
    manifest = Manifest(folder)
    with Downloader(folder, dataclasses.replace(PARAMS, **changed), LIMITS, stored or {}) as downloader:
        list(downloader.run(downloader.needed(clips, manifest, set(again.split(","))), manifest))
    manifest.save()
    assert not (folder / ".partial").exists() and not (folder / "clips.journal").exists()
    return {row["clip_id"]: ClipRecord(**row) for row in pd.read_parquet(folder / "clips.parquet").to_dict("records")}


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
