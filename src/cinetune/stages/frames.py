"""Decode every clip once and keep the frames that the model looks at.

Takes <data.root>/questions/*.parquet and <data.root>/clips/<clip_id>.mp4; makes cache/frames/ (by hand:
outputs/runs/<run id>/frames/, or <out>). A clip that cannot be read is one recorded failure, and the rest goes
on; a run again does what is missing. Run it with `dvc repro frames`, or by hand with `mlflow run . -e frames`;
on many machines with `-P shard=3/64 -P out=<shared folder>`, then once without `shard` to join the parts.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cinetune import stages, tracking
from cinetune.errors import InputError
from cinetune.params import Params

if TYPE_CHECKING:
    from cinetune.frame_store import FrameStoreWriter

FAILURES_SHOWN = 5
SPLITS = ("train", "test")


def run(params: Params, is_pipeline: bool = False) -> dict[str, float]:
    """Counts of the clips, and how long the new ones took."""
    part, parts = _read_shard(params.frames.shard)
    if is_pipeline and (params.frames.out or parts > 1):
        raise InputError("frames.shard and frames.out are for runs by hand: leave them empty in params.yaml.")
    name = stages.run_name("frames", *stages.unusual(params, "frames"))
    with tracking.start("frames", stages.tags_of(params, is_pipeline), name=name) as tracked:
        from cinetune.frame_store import FrameStore, plan

        tracked.log_params(stages.sections(params, "data", "frames"))
        splits = _splits(params.data.root)
        for split in splits:
            stages.log_questions(tracked, params, split, split)
        clip_ids = _clip_ids(params.data.root, splits)
        by_hand = Path(params.frames.out) if params.frames.out else stages.RUNS / tracked.id / "frames"
        folder = stages.FRAMES if is_pipeline else by_hand
        shards = plan(clip_ids, params.frames.shard_clips)[part - 1 :: parts]
        started = time.monotonic()
        num_new, num_failed = _decode(shards, folder, params, is_shared=parts > 1)
        if parts == 1:
            _writer(folder, params).close(keep=clip_ids)
        seconds = time.monotonic() - started
        figures = {"clips": sum(map(len, shards)), "clips_new": num_new, "clips_failed": num_failed}
        tracked.log_metrics(figures | {"seconds": seconds})
        if parts == 1:
            store = FrameStore.open(folder)
            tracked.log_table(store.failures, "failures.json")
            _report_failures(store.failures, len(clip_ids))
        said = f"{figures['clips']} clips in {folder}, {num_new} of them new, {num_failed} failed."
        tracked.describe(said)
        print(f"frames: {said}")
        return figures


def _read_shard(shard: str) -> tuple[int, int]:
    """`3/64` as (3, 64), nothing as (1, 1)."""
    if not shard:
        return 1, 1
    part, _, parts = shard.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise InputError(f"frames.shard must be like 3/64, from 1/64 to 64/64, got {shard!r}.")
    return int(part), int(parts)


def _splits(root: str) -> Sequence[str]:
    """Those that are there; all where none is, to be told of the first."""
    return [split for split in SPLITS if (Path(root) / "questions" / f"{split}.parquet").is_file()] or SPLITS


def _clip_ids(root: str, splits: Sequence[str]) -> list[str]:
    from cinetune import questions

    clips = [clip for split in splits for clip in questions.load(root, split)]
    return list(dict.fromkeys(clip.clip_id for clip in clips))


def _writer(folder: Path, params: Params, is_shared: bool = False) -> FrameStoreWriter:
    from cinetune.frame_store import FrameStoreWriter
    from cinetune.frames import FrameSettings

    return FrameStoreWriter(folder, FrameSettings.of(params.frames), params.frames.shard_clips, is_shared)


def _decode(shards: Sequence[list[str]], folder: Path, params: Params, is_shared: bool) -> tuple[int, int]:
    """Decode what is missing; how many clips that were, and how many of them failed."""
    from cinetune import engines, video
    from cinetune.frames import FrameSettings

    done = _writer(folder, params, is_shared).done
    missing = [[clip_id for clip_id in shard if clip_id not in done] for shard in shards]
    work = engines.Work(
        root=folder,
        clips=Path(params.data.root) / "clips",
        settings=FrameSettings.of(params.frames),
        limits=video.Limits.of(params.frames),
        workers=params.frames.workers,
    )
    total = sum(map(len, missing))
    bar = stages.Bar("frames", total)
    num_failed = 0
    engine = engines.on_ray if params.frames.engine == "ray" else engines.here
    for is_ok in engine(work, [shard for shard in missing if shard]):
        num_failed += not is_ok
        bar.step(is_failure=not is_ok)
    bar.close()
    return total, num_failed


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
