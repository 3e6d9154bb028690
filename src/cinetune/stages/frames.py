"""Decode every clip once and keep the frames that the model looks at.

Takes <data.root>/questions/*.parquet and <data.root>/clips/<clip_id>.mp4; makes cache/frames/ (by hand:
outputs/runs/<run id>/frames/, or <out>). A clip that cannot be read is one recorded failure, and the rest goes
on; a run again does what is missing or whose file has changed. Run it with
`dvc repro frames`, or by hand with `mlflow run . -e frames`; on many machines with `-P shard=3/64 -P out=<shared
folder>`, then once without `shard` to join the parts. `--dry-run` says how long it would take.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from cinetune import pipeline
from cinetune.cli import parse, progress
from cinetune.errors import InputError
from cinetune.params import Params

logger = logging.getLogger(__name__)

MAX_FAILURES_SHOWN = 5
SPLITS = ("train", "validation", "test")


def run(params: Params, is_pipeline: bool = False) -> Mapping[str, int]:
    """Counts of the clips: "clips", "clips_new", "clips_failed"."""
    from cinetune.frames import executors
    from cinetune.frames.store import FrameStore

    _, parts = executors.read_shard(params.frames.shard)
    if is_pipeline and (params.frames.out or parts > 1):
        raise InputError("frames.shard and frames.out are for runs by hand: leave them empty in params.yaml.")
    root = Path(params.data.root)
    splits = _splits(root)
    with pipeline.started("frames", params, ["data", "frames"], splits, is_pipeline=is_pipeline) as tracked:
        clip_ids = _clip_ids(root, splits)
        by_hand = Path(params.frames.out) if params.frames.out else pipeline.RUNS / tracked.id / "frames"
        folder = pipeline.FRAMES if is_pipeline else by_hand
        started = time.monotonic()
        counts = executors.decode_missing(
            params.frames, root / "clips", clip_ids, folder, lambda total: progress("frames", total), is_pipeline
        )
        tracked.log_metrics({**counts, "seconds": time.monotonic() - started})
        if parts == 1:
            store = FrameStore.open(folder)
            tracked.log_table(store.failures, "failures.json")
            _report_failures(store.failures, len(clip_ids))
            executors.refuse_passing(store.passing_failures)
        new, failed = counts["clips_new"], counts["clips_failed"]
        said = f"{counts['clips']} clips in {folder}, {new} of them new, {failed} failed."
        tracked.describe(said)
        print(f"frames: {said}")
        return counts


def _splits(root: Path) -> Sequence[str]:
    # The first where none is there, to be told of it.
    return [split for split in SPLITS if (root / "questions" / f"{split}.parquet").is_file()] or SPLITS[:1]


def _clip_ids(root: Path, splits: Sequence[str]) -> list[str]:
    """Of all clips with questions, in their order."""
    from cinetune.task import questions

    return list(dict.fromkeys(clip_id for split in splits for clip_id in questions.clip_ids_of(root, split)))


def describe(params: Params) -> list[str]:
    """What a run would take, in a sentence."""
    from cinetune.frames import estimate

    root = Path(params.data.root)
    folder = Path(params.frames.out) if params.frames.out else pipeline.FRAMES
    return [f"frames: {estimate.describe(params.frames, root / 'clips', _clip_ids(root, _splits(root)), folder)}."]


def _report_failures(failures: Mapping[str, str], total: int) -> None:
    for clip_id, reason in list(failures.items())[:MAX_FAILURES_SHOWN]:
        logger.warning("frames: %s: %s", clip_id, reason)
    if failures and len(failures) == total:
        first = next(iter(failures.values()))
        raise InputError(f"none of the {total} clips gave frames; the first: {first.removesuffix('.')}.")


def main(argv: Sequence[str]) -> int:
    arguments = parse(argv, "frames", __doc__, has_pipeline=True)
    if arguments.params.frames.dry_run:
        print(*pipeline.dry_run("frames", arguments.params, describe, arguments.is_pipeline), sep="\n")
        return 0
    run(arguments.params, arguments.is_pipeline)
    return 0
