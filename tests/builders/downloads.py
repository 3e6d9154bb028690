"""Downloads from a server on loopback."""

from __future__ import annotations

import dataclasses
import threading
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import pytest

from cinetune import params as params_module
from cinetune.data import download, fetching, links
from cinetune.data.download import Downloader
from cinetune.data.fetching import FetchResult
from cinetune.data.intake import ClipRequest
from cinetune.data.links import Link
from cinetune.data.manifest import ClipRecord, Manifest
from cinetune.frames import decoder
from cinetune.frames.limits import Limits

PARAMS = dataclasses.replace(
    params_module.load().download,
    workers=2, retries=1, pause_s=0.0, backoff_s=0.01, cooldown_s=0.02, max_cooldown_s=2.0, stall_s=1.0, timeout_s=4.0,
    max_megabytes=1, stop_after=100,
)  # fmt: skip


LIMITS = Limits.of(params_module.load().frames)


class Script:
    """Fetching and decoding without processes and network: an answer for each address by the first step of its path.

    refusal: a status, and how many requests it is still given to, whatever their path.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.asked: Counter[str] = Counter()
        self.refusal = ("", 0)
        self.announced_s: float | None = None
        self._lock = threading.Lock()
        script = self

        class Fetcher(fetching.Fetcher):
            def fetch(self, link: Link, path: Path) -> FetchResult:
                return script.answer(link, path)

        class Decoder(decoder.Decoder):
            def read(self, source: Path, *_: object) -> Any:
                return SimpleNamespace(duration_s=float(source.read_text()))

        patch.setattr(download, "Fetcher", Fetcher)
        patch.setattr(download, "Decoder", Decoder)

    def answer(self, link: Link, path: Path) -> FetchResult:
        status = urlsplit(link.url).path.split("/")[1]
        with self._lock:
            self.asked[status] += 1
            refusal, num_left = self.refusal
            self.refusal = (refusal, max(0, num_left - 1))
        status = refusal if num_left else status
        if status not in ("ok", "watch"):
            return FetchResult(status, f"said {status}.")
        path.write_text("2.0")
        return FetchResult("ok", duration_s=self.announced_s)


def clip(path: Path, seed: int = 0) -> bytes:
    """About 100 kB of film of two seconds."""
    # Not there on a bare GPU machine, which collects the tests too.
    from cinetune.frames.encoding import encode

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
