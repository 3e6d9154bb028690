"""An open video, and a walk through it that stops at exact frames. Meant for the decoding process."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from functools import partial
from typing import BinaryIO

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from cinetune.frames.limits import Limits, Refusal, check_size
from cinetune.frames.video.timeline import Timeline

# Only real containers: playlists and scripts (HLS, DASH, SDP, ffconcat) name other files to open.
OPEN_OPTIONS = {
    "protocol_whitelist": "pipe",
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi",
}
READ_BUFFER_BYTES = 1 << 18
# In these a frame may be one that no other needs, and their decoders leave such frames out on request.
CODECS_WITH_IDLE_FRAMES = {"h264", "hevc"}
# In these a packet may hold no shown frame, so a packet's timestamp does not promise one.
CODECS_WITH_HIDDEN_FRAMES = {"vp8", "mpeg4"}


class Playhead:
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

    def __enter__(self) -> Playhead:
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


def pixel_aspect_of(stream: VideoStream) -> Fraction:
    """How many times wider than high a pixel is shown; 1 where the file does not say or talks nonsense."""
    aspect = stream.sample_aspect_ratio
    return aspect if aspect and Fraction(1, 8) <= aspect <= 8 else Fraction(1)
