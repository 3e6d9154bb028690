"""How long decoding will take, from a few of the clips."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from cinetune.errors import InputError
from cinetune.frames import writer
from cinetune.frames.decoder import DecodingChild
from cinetune.frames.executors import clip_digests, decoder_of, image_rate, path_of
from cinetune.frames.limits import Limits, VideoError
from cinetune.frames.sampling import FrameSettings
from cinetune.params import FramesParams

SAMPLE_CLIPS = 16


def describe(params: FramesParams, clips: Path, clip_ids: Sequence[str], root: Path) -> str:
    """What decoding the clips without frames in `root` takes, as a sentence; writes nothing.

    Time goes by the size of files, of which some are decoded. Raises InputError where no clip has a file.
    """
    settings = FrameSettings.of(params)
    digests = clip_digests(params, clips, clip_ids) if any(root.glob("*.safetensors")) else dict.fromkeys(clip_ids, "")
    done = writer.done(root, settings, digests)
    rate = image_rate(params)
    paths = {clip_id: path_of(clips, clip_id, rate) for clip_id in clip_ids}
    sizes = {clip_id: _num_bytes(path) for clip_id, path in paths.items()}
    missing = [clip_id for clip_id in clip_ids if clip_id not in done]
    there = [clip_id for clip_id in missing if sizes.get(clip_id)]
    if not missing:
        return f"none of the {len(clip_ids)} clips is to be decoded"
    if not there:
        raise InputError(f"none of the {len(missing)} clips without frames has a file in {str(clips)!r}.")
    sample = there[:: -(-len(there) // SAMPLE_CLIPS)]
    with decoder_of(Limits.of(params), rate) as decoder:
        # The first also waits for the child to start.
        seconds = [_seconds(decoder, paths[clip_id], settings) for clip_id in (sample[0], *sample)][1:]
    total_s = sum(seconds) * sum(sizes[clip_id] for clip_id in there) / sum(sizes[clip_id] for clip_id in sample)
    num_bytes = len(there) * settings.num_frames * settings.size**2 * 3
    return (
        f"{len(missing)} of {len(clip_ids)} clips are to be decoded, {len(missing) - len(there)} of them have no file: "
        f"about {total_s / 60 / params.workers:.1f} minutes with {params.workers} workers on this machine, "
        f"{max(seconds):.1f} s for the slowest of {len(sample)} that were tried, and {num_bytes / 1e9:.2f} GB"
    )


def _num_bytes(path: Path) -> int:
    """Of a file, or of the files of a folder; 0 where there is none."""
    files = path.iterdir() if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _seconds(decoder: DecodingChild, path: Path, settings: FrameSettings) -> float:
    """What a clip takes, also one that cannot be used."""
    began = time.monotonic()
    try:
        decoder.read(path, settings)
    except VideoError:
        return time.monotonic() - began
    return time.monotonic() - began
