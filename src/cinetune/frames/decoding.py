"""Exact frames of an open video at given times, and its shot cuts. Meant for the decoding process."""

from __future__ import annotations

from fractions import Fraction
from typing import BinaryIO

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation

from cinetune import sandbox
from cinetune.frames.limits import Limits, check_part, of_film
from cinetune.frames.sampling import ClipFrames, FrameSettings, choose_times, fit
from cinetune.frames.video.cuts import find_cuts
from cinetune.frames.video.fragments import promised_end_s
from cinetune.frames.video.playhead import Playhead, open_video, pixel_aspect_of
from cinetune.frames.video.timeline import read_timeline

# By the numbers of ITU-T H.273.
HDR_TRANSFERS = {16: "HDR (PQ)", 18: "HDR (HLG)"}
# The same pixels on every processor, not only on this one.
REPEATABLE = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT


def decode_clip(
    file: BinaryIO, settings: FrameSettings, limits: Limits, part: tuple[float, float] | None = None
) -> ClipFrames:
    """Frames of an open, seekable file, or of a part of it (start and end in s, an end of 0 is the file's).

    Of a part, the limit on duration holds alone. Meant for the child: only there are memory and time bounded.
    """
    fragments_end_s = promised_end_s(file)
    opened = open_video(file, limits)
    timeline = read_timeline(*opened, limits if part is None else of_film(limits), fragments_end_s)
    start, end = check_part(part, timeline.duration_s, limits) if part else (0.0, timeline.duration_s)
    pixel_aspect, context = pixel_aspect_of(opened[1]), opened[1].codec_context
    sandbox.limit_processor_time(limits.processor_s(context.width, context.height, end - start))
    if settings.policy == "shots":
        opened[0].close()
        cuts = find_cuts(file, timeline, settings, limits, start, end)
        opened = open_video(file, limits)
    else:
        cuts = ()
    times = [start + time_s for time_s in choose_times(end - start, [cut - start for cut in cuts], settings)]
    if settings.seek == "keyframe" and timeline.keyframes:
        positions = [timeline.nearest_keyframe(time_s) for time_s in times]
        times = [timeline.seconds(position) for position in positions]
    else:
        positions = [timeline.shown_at(time_s) for time_s in times]
    fitted: dict[int, np.ndarray] = {}
    notes = [] if pixel_aspect == 1 else [f"pixels of {pixel_aspect}, stretched"]
    with Playhead(file, timeline, limits, opened, positions) as playhead:
        for position in positions:
            if position not in fitted:
                frame = playhead.frame_at(position)
                fitted[position] = _fitted(frame, settings.size, pixel_aspect)
    if frame.color_trc in HDR_TRANSFERS:
        notes.append(f"{HDR_TRANSFERS[frame.color_trc]}, not tone-mapped")
    frames = np.stack([fitted[position] for position in positions])
    return ClipFrames(frames, tuple(times), tuple(cuts), end - start, "; ".join(notes))


def _fitted(frame: VideoFrame, size: int, pixel_aspect: Fraction) -> np.ndarray:
    """uint8 RGB [size, size, 3], stretched, mirrored and turned by quarters as the file says it is to be shown."""
    # One thread, for starting several takes longer than the conversion itself.
    image = frame.reformat(format="rgb24", interpolation=REPEATABLE, threads=1).to_ndarray()
    aspect = float(pixel_aspect)
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return fit(image, size, aspect)
    a, b, _, c, d, *_ = np.frombuffer(matrix, np.int32).tolist()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        across, down = a, d
    else:
        image, across, down, aspect = image.transpose(1, 0, 2), c, b, 1 / aspect
    return fit(image[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1], size, aspect)
