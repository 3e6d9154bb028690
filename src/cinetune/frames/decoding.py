"""Exact frames of an open video at given times, and its shot cuts. Meant for the decoding process."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import BinaryIO

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from av.video.stream import VideoStream

from cinetune.frames.fragments import promised_end_s
from cinetune.frames.limits import Limits, Refusal, check_part, check_size, of_film
from cinetune.frames.sampling import ClipFrames, FrameSettings, choose_times, fit
from cinetune.frames.timeline import Timeline, read_timeline

# Only real containers: playlists and scripts (HLS, DASH, SDP, ffconcat) name other files to open.
OPEN_OPTIONS = {
    "protocol_whitelist": "pipe",
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi",
}
# The same pixels on every processor, not only on this one.
REPEATABLE = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
READ_BUFFER_BYTES = 1 << 18
CUT_DETECTION_PIXELS = 160
# In these a frame may be one that no other needs, and their decoders leave such frames out on request.
CODECS_WITH_IDLE_FRAMES = {"h264", "hevc"}
# In these a packet may hold no shown frame, so a packet's timestamp does not promise one.
CODECS_WITH_HIDDEN_FRAMES = {"vp8", "mpeg4"}


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
    if settings.policy == "shots":
        opened[0].close()
        cuts = _find_cuts(file, timeline, settings, limits, start, end)
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
    with _Playhead(file, timeline, limits, opened, positions) as playhead:
        for position in positions:
            if position not in fitted:
                fitted[position] = fit(_upright(playhead.frame_at(position)), settings.size)
    frames = np.stack([fitted[position] for position in positions])
    return ClipFrames(frames=frames, times=tuple(times), cuts=tuple(cuts), duration_s=end - start)


def _find_cuts(
    file: BinaryIO, timeline: Timeline, settings: FrameSettings, limits: Limits, start: float, end: float
) -> tuple[float, ...]:
    """Seconds at which a new shot begins, from every frame between two moments made small."""
    from scenedetect import FrameTimecode
    from scenedetect.detector import FlashFilter
    from scenedetect.detectors import ContentDetector

    detector = ContentDetector(
        threshold=settings.cut_threshold,
        min_scene_len=settings.min_shot_frames,
        # The other mode loses a cut that comes soon after another and near the end of the clip.
        filter_mode=FlashFilter.Mode.SUPPRESS,
    )
    reformatter = VideoReformatter()
    shape: tuple[int, int] | None = None
    positions: list[int] = []
    cuts: list[float] = []
    with _Playhead(file, timeline, limits, open_video(file, limits)) as playhead:
        for position, frame in playhead.frames_from(timeline.shown_at(start) if start > 0 else None):
            if timeline.seconds(position) >= end:
                break
            if shape is None:
                scale = min(1.0, CUT_DETECTION_PIXELS / max(frame.width, frame.height))
                shape = (max(1, round(frame.width * scale)), max(1, round(frame.height * scale)))
            small = reformatter.reformat(frame, *shape, format="bgr24", interpolation="AREA", threads=1)
            # Shots are measured in frames, so the rate of these timecodes plays no part.
            timecode = FrameTimecode(len(positions), fps=25.0)
            positions.append(position)
            found = detector.process_frame(timecode, small.to_ndarray())
            cuts += [timeline.seconds(positions[cut.frame_num]) for cut in found]
    if not positions:
        raise Refusal("broken", "holds no frame that can be decoded: fetch it again")
    return tuple(cuts)


class _Playhead:
    """Walks through one video and stops at the positions asked for, in ascending order; without any, at all."""

    def __init__(
        self,
        file: BinaryIO,
        timeline: Timeline,
        limits: Limits,
        opened: tuple[InputContainer, VideoStream],
        positions: Sequence[int] = (),
    ) -> None:
        self._file, self._timeline, self._limits = file, timeline, limits
        self._container, self._stream = opened
        self._positions = sorted(set(positions))
        self._on_this_walk: frozenset[int] = frozenset()
        self._shown: tuple[int, VideoFrame] | None = None
        self._coming: tuple[int, VideoFrame] | None = None

    def __enter__(self) -> _Playhead:
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    def frames_from(self, position: int | None) -> Iterator[tuple[int, VideoFrame]]:
        """Every frame after a position that can be decoded, with its own; of all of them without one."""
        if position is None:
            self._rewind()
        else:
            self.frame_at(position)
        while self._coming is not None:
            yield self._coming
            self._step()

    def frame_at(self, position: int) -> VideoFrame:
        """The frame whose position this is. Refuses a clip in which it cannot be decoded without damage."""
        self._on_this_walk = frozenset(self._walk(position))
        for start in self._starts(position):
            start()
            while self._coming is not None and self._coming[0] <= position:
                self._step()
            if self._shown is not None and self._is_sound(*self._shown, position):
                return self._shown[1]
        raise Refusal("broken", f"cannot be decoded at {self._timeline.seconds(position):.2f} s: fetch it again")

    def _walk(self, position: int) -> Iterator[int]:
        """This position and those after it that are reached soonest by walking on."""
        here = position
        for other in self._positions[bisect.bisect_left(self._positions, position) :]:
            index = self._timeline.entry_before(other)
            if index >= 0 and self._timeline.entries[index] > here and other != position:
                return
            yield other
            here = other

    def _starts(self, position: int) -> Iterator[Callable[[], None]]:
        """Ways to get there, cheapest first: walk on, jump to a keyframe before it, begin again."""
        index = self._timeline.entry_before(position)
        here = self._shown or self._coming
        if here is not None and here[0] <= position:
            entry_is_behind = index < 0 or self._timeline.entries[index] <= here[0]
            if entry_is_behind:
                yield lambda: None
        # Some containers look a moment up by when it is shown, others by when it is decoded.
        if index >= 0:
            yield partial(self._jump, self._timeline.entries[index])
        # More than one, because the frames just before some keyframes need the keyframe before.
        for earlier in range(index, max(index - 3, -1), -1):
            yield partial(self._jump, self._timeline.seek_points[earlier])
        yield self._begin_again

    def _is_sound(self, shown_at: int, frame: VideoFrame, position: int) -> bool:
        in_place = shown_at == position or self._stream.codec_context.name in CODECS_WITH_HIDDEN_FRAMES
        return in_place and not self._is_damaged and not frame.is_corrupt

    def _jump(self, seek_point: int) -> None:
        try:
            self._container.seek(seek_point, stream=self._stream, backward=True)
        except FFmpegError:
            self._begin_again()
        else:
            self._rewind()

    def _begin_again(self) -> None:
        self._container.close()
        self._container, self._stream = open_video(self._file, self._limits)
        self._rewind()

    def _rewind(self) -> None:
        self._is_damaged = False
        self._frames = self._decode()
        self._shown = None
        self._coming = next(self._frames, None)

    def _step(self) -> None:
        self._shown, self._coming = self._coming, next(self._frames, None)

    def _decode(self) -> Iterator[tuple[int, VideoFrame]]:
        positions = iter(self._timeline.positions)
        context = self._stream.codec_context
        # What nothing else is built on need not be decoded, unless it is what was asked for.
        may_skip = self._positions and not self._timeline.is_counted and context.name in CODECS_WITH_IDLE_FRAMES
        num_left = sum(map(self._timeline.num_at, self._on_this_walk)) if may_skip else math.inf
        for packet in self._container.demux(self._stream):
            is_wanted = packet.pts in self._on_this_walk and not packet.is_discard
            if may_skip:
                context.skip_frame = "DEFAULT" if is_wanted else "NONREF"
            num_left -= is_wanted
            try:
                # The decoder holds frames back to put them in order; at the end of a walk it is asked for them.
                frames = packet.decode() + (context.decode(None) if num_left == 0 else [])
            except MemoryError:
                raise
            except FFmpegError:
                # What follows may be built on the lost packet; it is judged where a frame is chosen.
                self._is_damaged = True
                frames = []
            for frame in frames:
                check_size(frame.width, frame.height, self._limits)
                position = next(positions, None) if self._timeline.is_counted else frame.pts
                if position is not None:
                    yield position, frame
            if num_left == 0:
                return


def _upright(frame: VideoFrame) -> np.ndarray:
    """uint8 RGB [height, width, 3], turned and mirrored as the file says it is to be shown, in quarter turns."""
    # One thread, for starting several takes longer than the conversion itself.
    image = frame.reformat(format="rgb24", interpolation=REPEATABLE, threads=1).to_ndarray()
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return image
    a, b, _, c, d, *_ = np.frombuffer(matrix, np.int32).tolist()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        across, down = a, d
    else:
        image, across, down = image.transpose(1, 0, 2), c, b
    return image[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1]


def open_video(file: BinaryIO, limits: Limits) -> tuple[InputContainer, VideoStream]:
    """The container and its first real video track, the size checked before anything is decoded."""
    file.seek(0)
    head = file.read(12)
    file.seek(0)
    # The decoder itself must refuse too: FFmpeg decodes a little while it opens.
    max_pixels = {"max_pixels": str(math.ceil(limits.max_megapixels * 1e6))}
    try:
        container = av.open(
            file,
            mode="r",
            options=OPEN_OPTIONS | max_pixels,
            metadata_errors="replace",
            buffer_size=READ_BUFFER_BYTES,
        )
    except MemoryError:
        raise
    except FFmpegError:
        if head[4:8] in (b"ftyp", b"moov", b"mdat") or head[:4] in (b"\x1a\x45\xdf\xa3", b"RIFF"):
            reason = "is damaged or cut off, its index cannot be read: fetch it again"
            raise Refusal("broken", reason) from None
        raise Refusal("not_a_video", "is not an MP4, MOV, Matroska, WebM or AVI video") from None
    skipped = Disposition.attached_pic | Disposition.timed_thumbnails
    stream = next((s for s in container.streams.video if not s.disposition & skipped), None)
    if stream is None:
        raise Refusal("not_a_video", "has no moving pictures, at most sound or a cover")
    if stream.codec_context is None:
        raise Refusal("unreadable", "uses a codec that is not supported: convert it to H.264")
    check_size(stream.codec_context.width, stream.codec_context.height, limits)
    stream.codec_context.thread_count = 1
    stream.codec_context.options = max_pixels
    return container, stream
