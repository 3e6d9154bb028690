"""Where clips are decoded: in children of this process, or on a Ray cluster. The frames are the same bytes."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from cinetune.errors import InputError
from cinetune.frame_store import FrameStoreWriter
from cinetune.frames import FrameSettings
from cinetune.video import Limits, VideoError, read_many


@dataclass(frozen=True)
class Work:
    """What to decode with what, and the store to put it in, which is open to several writers."""

    root: Path
    clips: Path
    settings: FrameSettings
    limits: Limits
    workers: int


def here(work: Work, shards: Sequence[list[str]]) -> Iterator[bool]:
    """Decode the clips of the shards; for each, whether it gave frames. A shard is written after its last clip."""
    writer = FrameStoreWriter(work.root, work.settings, max(map(len, shards), default=1), is_shared=True)
    last_of_shard = {shard[-1] for shard in shards}
    for clip_id, result in read_many(_paths(work, chain(*shards)), work.settings, work.limits, work.workers):
        writer.add(clip_id, result)
        if clip_id in last_of_shard:
            writer.flush()
        yield not isinstance(result, VideoError)


def _paths(work: Work, clip_ids: Iterable[str]) -> Iterator[tuple[str, Path | VideoError]]:
    for clip_id in clip_ids:
        if clip_id == Path(clip_id).name:
            yield clip_id, work.clips / f"{clip_id}.mp4"
        else:
            # It would be looked for outside the folder of clips.
            yield clip_id, VideoError("unreadable", f"clip id {clip_id!r} is no file name.")


def on_ray(work: Work, shards: Sequence[list[str]]) -> Iterator[bool]:
    """The same with a task a shard, on the cluster of RAY_ADDRESS or on `workers` processors of this machine.

    A task whose machine or process dies is done again elsewhere. All machines must see the same folders.
    """
    if importlib.util.find_spec("ray") is None:
        raise InputError("frames.engine ray needs Ray: `pip install 'cinetune[ray]'`, or use local.")
    import ray

    there = {"address": os.environ["RAY_ADDRESS"]} if "RAY_ADDRESS" in os.environ else {"num_cpus": work.workers}
    ray.init(**there, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        absolute = Work(work.root.absolute(), work.clips.absolute(), work.settings, work.limits, workers=1)
        task = ray.remote(num_cpus=1, max_retries=-1)(_shard_task)
        waiting = [task.remote(absolute, shard) for shard in shards]
        while waiting:
            done, waiting = ray.wait(waiting)
            for results in ray.get(done):
                yield from results
    finally:
        ray.shutdown()


def _shard_task(work: Work, shard: list[str]) -> list[bool]:
    return list(here(work, [shard]))
