"""Where clips are decoded: in children of this process, or on a Ray cluster. The frames are the same bytes."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cinetune.errors import InputError
from cinetune.files import cached_digests
from cinetune.frames import writer
from cinetune.frames.decoder import Decoder, DecodingChild, read_many
from cinetune.frames.images import listing
from cinetune.frames.images.decoder import ImageDecoder
from cinetune.frames.limits import Limits, VideoError
from cinetune.frames.sampling import ClipFrames, FrameSettings
from cinetune.frames.store import plan
from cinetune.frames.writer import PartWriter
from cinetune.params import FramesParams
from cinetune.task.clip_ids import check


@dataclass(frozen=True)
class Work:
    """What to decode with what, and the store to put it in, which is open to several writers.

    digests: of the clips' files by clip id, taken before they are decoded; images_per_s: of clips that are folders of
    numbered images, 0 for videos.
    """

    root: Path
    clips: Path
    settings: FrameSettings
    limits: Limits
    workers: int
    digests: Mapping[str, str] = field(default_factory=dict)
    images_per_s: float = 0.0


def read_shard(shard: str) -> tuple[int, int]:
    """`3/64` as (3, 64), nothing as (1, 1)."""
    if not shard:
        return 1, 1
    part, _, parts = shard.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise InputError(f"frames.shard must be like 3/64, from 1/64 to 64/64, got {shard!r}.")
    return int(part), int(parts)


def decode_missing(
    params: FramesParams,
    clips: Path,
    clip_ids: Sequence[str],
    root: Path,
    progress: Callable[[int], tqdm[Any]],
    is_full: bool = False,
) -> dict[str, int]:
    """Decode the clips of this shard that have no frames in `root`, or those of another file; the last part joins all.

    clips: the folder of <clip_id>.mp4, or of <clip_id>/ with images; progress: a bar for a number of clips; is_full:
    files and stored pixels are read in full instead of trusting what is known of them. Counts: "clips" of the shard,
    "clips_new" and "clips_failed" of them.
    """
    part, parts = read_shard(params.shard)
    settings = FrameSettings.of(params)
    if parts == 1:
        writer.prepare(root, settings)
    shards = plan(clip_ids, params.shard_clips)[part - 1 :: parts]
    digests = clip_digests(params, clips, clip_ids if parts == 1 else list(chain(*shards)), is_full)
    done = writer.done(root, settings, digests, is_full and parts == 1)
    missing = [[clip_id for clip_id in shard if clip_id not in done] for shard in shards]
    work = Work(root, clips, settings, Limits.of(params), params.workers, digests, image_rate(params))
    counts = {"clips": sum(map(len, shards)), "clips_new": sum(map(len, missing)), "clips_failed": 0}
    execute = on_ray if params.engine == "ray" else here
    with progress(counts["clips_new"]) as bar:
        for is_ok in execute(work, [shard for shard in missing if shard]):
            counts["clips_failed"] += not is_ok
            bar.set_postfix(failed=counts["clips_failed"], refresh=False)
            bar.update()
    if parts == 1:
        writer.join(root, settings, params.shard_clips, digests)
    return counts


def image_rate(params: FramesParams) -> float:
    """Of numbered images a second; 0 where clips are videos."""
    return params.images_per_s if params.source == "images" else 0.0


def clip_digests(params: FramesParams, clips: Path, clip_ids: Iterable[str], is_full: bool = False) -> dict[str, str]:
    """sha256 of each clip's file in the folder, or of its images; empty where there is none that can be read."""
    found: dict[str, str] = {}
    rate = image_rate(params)
    with cached_digests(is_full) as digest_of:
        for clip_id in clip_ids:
            found[clip_id] = ""
            # Any other could lead outside the folder of clips.
            if check(clip_id) is None:
                with suppress(OSError):
                    found[clip_id] = _digest(path_of(clips, clip_id, rate), rate, digest_of)
    return found


def _digest(path: Path, rate: float, digest_of: Callable[[Path], str]) -> str:
    if rate:
        return listing.digest(path, rate, digest_of)
    # Reading a FIFO would wait for a writer for ever.
    return digest_of(path) if path.is_file() else ""


def here(work: Work, shards: Sequence[list[str]]) -> Iterator[bool]:
    """Decode the clips of the shards; for each, whether it gave frames. A shard is written after its last clip.

    What the machine was at fault for is tried once more at the end.
    """
    part = PartWriter(work.root, work.settings, max(map(len, shards), default=1))
    last_of_shard = {shard[-1] for shard in shards}
    again: list[str] = []
    for clip_id, result in _read(work, chain(*shards)):
        if isinstance(result, VideoError) and result.is_passing:
            again.append(clip_id)
        else:
            part.add(clip_id, result, work.digests.get(clip_id, ""))
            yield not isinstance(result, VideoError)
        if clip_id in last_of_shard:
            part.flush()
    for clip_id, result in _read(work, again):
        part.add(clip_id, result, work.digests.get(clip_id, ""))
        yield not isinstance(result, VideoError)
    part.flush()


def _read(work: Work, clip_ids: Iterable[str]) -> Iterator[tuple[str, ClipFrames | VideoError]]:
    open_decoder = partial(decoder_of, work.limits, work.images_per_s)
    return read_many(_paths(work, clip_ids), work.settings, open_decoder, work.workers)


def decoder_of(limits: Limits, images_per_s: float) -> DecodingChild:
    """Of videos where `images_per_s` is 0, else of folders of images."""
    return ImageDecoder(limits, images_per_s) if images_per_s else Decoder(limits)


def path_of(clips: Path, clip_id: str, images_per_s: float) -> Path:
    """A clip's file, or its folder of images."""
    return clips / (clip_id if images_per_s else f"{clip_id}.mp4")


def _paths(work: Work, clip_ids: Iterable[str]) -> Iterator[tuple[str, Path | VideoError]]:
    for clip_id in clip_ids:
        # Any other could lead outside the folder of clips.
        reason = check(clip_id)
        path = path_of(work.clips, clip_id, work.images_per_s)
        yield clip_id, VideoError("unreadable", f"{reason}.") if reason else path


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
        absolute = replace(work, root=work.root.absolute(), clips=work.clips.absolute(), workers=1)
        task = ray.remote(num_cpus=1, max_retries=-1)(_shard_task)
        waiting = [task.remote(replace(absolute, digests=_of_shard(work, shard)), shard) for shard in shards]
        while waiting:
            done, waiting = ray.wait(waiting)
            for results in ray.get(done):
                yield from results
    finally:
        ray.shutdown()


def _of_shard(work: Work, shard: list[str]) -> dict[str, str]:
    return {clip_id: work.digests.get(clip_id, "") for clip_id in shard}


def _shard_task(work: Work, shard: list[str]) -> list[bool]:
    return list(here(work, [shard]))


def refuse_passing(failures: Mapping[str, str]) -> None:
    """A store that another run may complete is not a finished stage, though what it holds stays."""
    if failures:
        first = next(iter(failures.values())).removesuffix(".")
        raise InputError(
            f"{len(failures)} clips failed for reasons that may pass, the first: {first}; run it again, which takes "
            "up these alone, or remove their files to go on without them."
        )
