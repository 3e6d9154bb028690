"""Decode every clip once and keep the frames that the model looks at.

Takes <data.root>/questions/*.parquet and <data.root>/clips/<clip_id>.mp4; makes cache/frames/ (by hand:
outputs/runs/<run id>/frames/). A clip that cannot be read is one recorded failure, and the rest goes on.
Run it with `dvc repro frames`, or by hand with `mlflow run . -e frames`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cinetune import stages, tracking
from cinetune.errors import InputError
from cinetune.params import Params

if TYPE_CHECKING:
    from cinetune.frame_store import FrameStoreWriter

FAILURES_SHOWN = 5


def run(params: Params, is_pipeline: bool = False) -> dict[str, float]:
    """Counts of the clips, and how long the new ones took."""
    with tracking.start("frames", stages.tags_of(params, is_pipeline)) as tracked:
        from cinetune.frame_store import FrameStore, FrameStoreWriter
        from cinetune.frames import FrameSettings

        tracked.log_params(stages.sections(params, "data", "frames"))
        clip_ids = _clip_ids(params.data.root)
        folder = stages.FRAMES if is_pipeline else stages.RUNS / tracked.id / "frames"
        writer = FrameStoreWriter(folder, FrameSettings.of(params.frames), params.frames.shard_clips)
        done = writer.done
        waiting = [clip_id for clip_id in clip_ids if clip_id not in done]
        started = time.monotonic()
        _decode(waiting, writer, params)
        writer.close(keep=clip_ids)
        seconds = time.monotonic() - started
        store = FrameStore.open(folder)
        figures = {"clips": len(clip_ids), "clips_new": len(waiting), "clips_failed": len(store.failures)}
        tracked.log_metrics(figures | {"seconds": seconds})
        tracked.log_table(store.failures, "failures.json")
        _report_failures(store.failures, len(clip_ids))
        failed = len(store.failures)
        print(f"frames: {len(store)} clips in {folder}, {len(waiting)} of them new, {failed} failed.")
        return figures


def _clip_ids(root: str) -> list[str]:
    from cinetune import questions

    clips = [clip for split in ("train", "test") for clip in questions.load(root, split)]
    return list(dict.fromkeys(clip.clip_id for clip in clips))


def _decode(clip_ids: Sequence[str], writer: FrameStoreWriter, params: Params) -> None:
    from cinetune import video
    from cinetune.frames import FrameSettings

    folder = Path(params.data.root) / "clips"
    paths: list[tuple[str, Path]] = []
    for clip_id in clip_ids:
        if clip_id != Path(clip_id).name:
            # It would be looked for outside the folder of clips.
            writer.add(clip_id, video.VideoError("unreadable", f"clip id {clip_id!r} is no file name."))
        else:
            paths.append((clip_id, folder / f"{clip_id}.mp4"))
    limits, settings = video.Limits.of(params.frames), FrameSettings.of(params.frames)
    say = stages.progress_lines("frames")
    results: Iterable = video.read_many(paths, settings, limits, params.frames.workers)
    for number, (clip_id, result) in enumerate(results, start=1):
        writer.add(clip_id, result)
        say(number, len(paths))


def _report_failures(failures: dict[str, str], total: int) -> None:
    for clip_id, reason in list(failures.items())[:FAILURES_SHOWN]:
        print(f"frames: {clip_id}: {reason}")
    if failures and len(failures) == total:
        first = next(iter(failures.values()))
        raise InputError(f"none of the {total} clips gave frames; the first: {first.removesuffix('.')}.")


def main(argv: Sequence[str]) -> int:
    arguments = stages.parse(argv, "frames", __doc__, has_pipeline=True)
    run(arguments.params, arguments.is_pipeline)
    return 0
