"""Open an untrusted video within bounds: exact frames at given times, shot cuts; and write small clips.

Decoding runs in a child process with limits on memory, processor time and wall-clock time, so that the
worst file costs one clip. The child opens the file itself and hands FFmpeg an open file, never a name: what a
crafted file says about other files or addresses leads nowhere. `python -m cinetune.video` is that child.
"""

from __future__ import annotations

import bisect
import io
import itertools
import json
import math
import os
import queue
import resource
import signal
import stat
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import av
import numpy as np
from av.bitstream import BitStreamFilterContext
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from av.video.stream import VideoStream

from cinetune import children
from cinetune.children import leave_with, read_message, write_message
from cinetune.errors import InputError
from cinetune.frames import ClipError, ClipFrames, FrameSettings, choose_times, fit
from cinetune.params import FramesParams

# Only real containers: playlists and scripts (HLS, DASH, SDP, ffconcat) name other files to open.
OPEN_OPTIONS = {
    "protocol_whitelist": "pipe",
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi",
}
READ_BUFFER_BYTES = 1 << 18
# Above this rate a container is not a film but an attempt to be one.
MOST_FRAMES_PER_SECOND = 120
# Of which only a part is looked at.
LONGEST_FILM_S = 6 * 3600.0
CUT_DETECTION_PIXELS = 160
# In these a packet may hold no shown frame, so a packet's timestamp does not promise one.
# In these a frame may be one that no other needs, and their decoders leave such frames out on request.
CODECS_WITH_IDLE_FRAMES = {"h264", "hevc"}
CODECS_WITH_HIDDEN_FRAMES = {"vp8", "mpeg4"}
# The same pixels on every processor, not only on this one.
REPEATABLE = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
# x264's AVX-512 code gives other bytes from run to run for small pictures; this level equals its plain C,
# which is also what it falls back to on other processors.
REPEATABLE_X264 = {"x264-params": "asm=SSE4.2"}


@dataclass(frozen=True)
class Limits:
    """What one clip may cost at most."""

    timeout_s: float
    max_megapixels: float
    max_duration_s: float
    memory_mb: int
    max_frames: int

    @classmethod
    def of(cls, params: FramesParams) -> Limits:
        return cls(
            timeout_s=params.timeout_s,
            max_megapixels=params.max_megapixels,
            max_duration_s=params.max_duration_s,
            memory_mb=params.memory_mb,
            max_frames=math.ceil(params.max_duration_s * MOST_FRAMES_PER_SECOND),
        )


class VideoError(ClipError):
    """A video that cannot be used.

    `status` is one of missing, unreadable, not_a_video, broken, too_large, too_long, timeout, out_of_memory.
    """


class _Refusal(Exception):
    """A status, and what is wrong as the end of a sentence that begins with the video's name."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


# ---- decoding, inside the child


class _Packet(NamedTuple):
    pts: int | None
    dts: int | None
    duration: int
    is_keyframe: bool


@dataclass(frozen=True)
class _Timeline:
    """When each frame is shown, read from the packets without decoding.

    Positions are in steps of `unit` seconds. Where frames carry no timestamps that can be trusted, they are
    counted instead: the first frame decoded stands at the first position, and so on.
    """

    is_counted: bool
    unit: Fraction
    positions: list[int]
    end: int
    keyframes: list[int]
    seek_points: list[int]

    @property
    def duration_s(self) -> float:
        return float((self.end - self.positions[0]) * self.unit)

    def uncertain_end_s(self, rate: Fraction) -> float:
        """How far the end may be off: half a frame at a steady rate, else the longest frame."""
        gaps = (later - earlier for earlier, later in itertools.pairwise(self.positions))
        longest = float(max(gaps, default=0) * self.unit)
        return longest if longest > 1.5 / rate else float(0.5 / rate)

    def seconds(self, position: int) -> float:
        return float((position - self.positions[0]) * self.unit)

    def shown_at(self, time_s: float) -> int:
        """Position of the last frame that begins no later than `time_s`, give or take a microsecond."""
        steps = math.floor((Fraction(time_s) + Fraction(1, 1_000_000)) / self.unit)
        index = bisect.bisect_right(self.positions, self.positions[0] + steps)
        return self.positions[max(index - 1, 0)]

    def keyframe_before(self, position: int) -> int:
        """Index of the last keyframe that is shown no later; -1 where there is none."""
        return bisect.bisect_right(self.keyframes, position) - 1

    def nearest_keyframe(self, time_s: float) -> int:
        wanted = self.shown_at(time_s)
        return min(self.keyframes, key=lambda keyframe: abs(keyframe - wanted))


def decode_clip(
    file: BinaryIO, settings: FrameSettings, limits: Limits, part: tuple[float, float] | None = None
) -> ClipFrames:
    """Frames of an open, seekable file, or of a part of it (start and end in s, an end of 0 is the file's).

    Of a part, the limit on duration holds alone. Meant for the child: only there are memory and time bounded.
    """
    opened = _open(file, limits)
    timeline = _read_timeline(*opened, limits if part is None else _of_film(limits))
    start, end = _check_part(part, timeline.duration_s, limits) if part else (0.0, timeline.duration_s)
    if settings.policy == "shots":
        opened[0].close()
        cuts = _find_cuts(file, timeline, settings, limits, start, end)
        opened = _open(file, limits)
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


def _of_film(limits: Limits) -> Limits:
    return replace(limits, max_duration_s=LONGEST_FILM_S, max_frames=math.ceil(LONGEST_FILM_S * MOST_FRAMES_PER_SECOND))


def _check_part(part: tuple[float, float], duration_s: float, limits: Limits) -> tuple[float, float]:
    start, end = part[0], min(part[1] or duration_s, duration_s)
    if start >= end:
        raise _Refusal("too_long", f"lasts {duration_s:.1f} s: nothing lies between {start:g} s and {end:g} s")
    _check_duration(end - start, limits)
    return start, end


def _open(file: BinaryIO, limits: Limits) -> tuple[InputContainer, VideoStream]:
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
            raise _Refusal("broken", reason) from None
        raise _Refusal("not_a_video", "is not an MP4, MOV, Matroska, WebM or AVI video") from None
    skipped = Disposition.attached_pic | Disposition.timed_thumbnails
    stream = next((s for s in container.streams.video if not s.disposition & skipped), None)
    if stream is None:
        raise _Refusal("not_a_video", "has no moving pictures, at most sound or a cover")
    if stream.codec_context is None:
        raise _Refusal("unreadable", "uses a codec that is not supported: convert it to H.264")
    _check_size(stream.codec_context.width, stream.codec_context.height, limits)
    stream.codec_context.thread_count = 1
    stream.codec_context.options = max_pixels
    return container, stream


def _check_size(width: int, height: int, limits: Limits) -> None:
    if width * height > limits.max_megapixels * 1e6:
        raise _Refusal(
            "too_large",
            f"has frames of {width} x {height} pixels, above the limit of {limits.max_megapixels:g} "
            "megapixels: scale it down or raise frames.max_megapixels",
        )


def _check_duration(duration_s: float, limits: Limits) -> None:
    if duration_s > limits.max_duration_s:
        raise _Refusal(
            "too_long",
            f"lasts {duration_s:.0f} s, above the limit of {limits.max_duration_s:g} s: "
            "cut it or raise frames.max_duration_s",
        )


def _read_timeline(container: InputContainer, stream: VideoStream, limits: Limits) -> _Timeline:
    """Read every packet's timestamp; the container is at its end afterwards.

    Refuses what is too long, cut off, or promises more than it holds.
    """
    unit = stream.time_base or Fraction(1, 1000)
    is_avi, is_mp4 = container.format.name == "avi", "mp4" in container.format.name
    promised_s = _promised_seconds(container, stream)
    _check_duration(promised_s, limits)
    # MP4 lists the place of every frame, so that a missing end shows at once.
    num_listed = len(stream.index_entries) if is_mp4 else 0
    packets: list[_Packet] = []
    num_read, ends = 0, dict.fromkeys(container.streams, 0)
    for packet in container.demux():
        is_ours = packet.stream is stream
        num_read += is_ours and packet.dts is not None
        if packet.size == 0 or packet.is_discard:
            continue
        duration = packet.duration or 0
        start = packet.pts if packet.pts is not None else packet.dts
        if start is not None and start + duration > ends[packet.stream]:
            ends[packet.stream] = start + duration
        if is_ours:
            if is_mp4 and packet.is_corrupt:
                raise _Refusal("broken", "is cut off, its last frames are missing: fetch it again")
            packets.append(_Packet(packet.pts, packet.dts, max(duration, 0), packet.is_keyframe))
            if len(packets) > limits.max_frames:
                raise _Refusal("too_long", f"has more than {limits.max_frames} frames: cut it")
    rate = stream.average_rate or stream.guessed_rate or Fraction(25)
    end_s = max(float(end * (other.time_base or 0)) for other, end in ends.items())
    if not packets:
        raise _Refusal("broken", "holds no frames: fetch it again")
    if num_read < num_listed:
        raise _Refusal("broken", f"holds {num_read} of its {num_listed} frames: fetch it again")
    # AVI stores no timestamps; those that FFmpeg makes up are wrong where frames are reordered.
    timeline = _arrange(packets, unit, rate, has_stamps=not is_avi)
    _check_duration(timeline.duration_s, limits)
    # MP4 may hide a part of what it promises on purpose, and was judged by its index.
    held_s = timeline.duration_s if is_avi else max(end_s, timeline.duration_s)
    if not is_mp4 and promised_s - held_s > timeline.uncertain_end_s(rate):
        reason = f"is cut off, it promises {promised_s:.1f} s and holds {held_s:.1f} s: fetch it again"
        raise _Refusal("broken", reason)
    return timeline


def _promised_seconds(container: InputContainer, stream: VideoStream) -> float:
    """The duration that the header states, 0 where it states none."""
    if container.format.name == "avi" and stream.frames and stream.average_rate:
        # Its duration is corrected by the size of the file, and so never shows that the end is missing.
        return float(stream.frames / stream.average_rate)
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return (container.duration or 0) / av.time_base


def _arrange(packets: list[_Packet], unit: Fraction, rate: Fraction, has_stamps: bool) -> _Timeline:
    """A timeline by timestamps; by counting where they are missing or repeat."""
    stamps = [packet.pts for packet in packets] if has_stamps else [None]
    is_counted = None in stamps or len(set(stamps)) < len(packets)
    if is_counted:
        # Order of decoding is not order of showing, but the same moments are taken up in both.
        stamps = [packet.dts for packet in packets]
    if None in stamps or len(set(stamps)) < len(packets):
        stamps, unit = list(range(len(packets))), 1 / rate
        packets = [packet._replace(duration=1) for packet in packets]
    shown_for = max(1, round(1 / rate / unit))
    last, last_packet = max(zip(stamps, packets, strict=True))
    seek_points = {
        packet.pts: packet.pts if packet.dts is None else min(packet.pts, packet.dts)
        for packet in packets
        if packet.is_keyframe and not is_counted
    }
    keyframes = sorted(seek_points)
    return _Timeline(
        is_counted=is_counted,
        unit=unit,
        positions=sorted(stamps),
        end=last + (last_packet.duration or shown_for),
        keyframes=keyframes,
        seek_points=[seek_points[pts] for pts in keyframes],
    )


def _find_cuts(
    file: BinaryIO, timeline: _Timeline, settings: FrameSettings, limits: Limits, start: float, end: float
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
    with _Playhead(file, timeline, limits, _open(file, limits)) as playhead:
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
        raise _Refusal("broken", "holds no frame that can be decoded: fetch it again")
    return tuple(cuts)


class _Playhead:
    """Walks through one video and stops at the positions asked for, in ascending order; without any, at all."""

    def __init__(
        self,
        file: BinaryIO,
        timeline: _Timeline,
        limits: Limits,
        opened: tuple[InputContainer, VideoStream],
        positions: Sequence[int] = (),
    ) -> None:
        self._file, self._timeline, self._limits = file, timeline, limits
        self._container, self._stream = opened
        self._positions = frozenset(positions)
        self._on_this_walk: set[int] = set()
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
        keyframe = self._timeline.keyframe_before
        self._on_this_walk = {other for other in self._positions if keyframe(other) == keyframe(position)}
        for start in self._starts(position):
            start()
            while self._coming is not None and self._coming[0] <= position:
                self._step()
            if self._shown is not None and self._is_sound(position):
                return self._shown[1]
        raise _Refusal("broken", f"cannot be decoded at {self._timeline.seconds(position):.2f} s: fetch it again")

    def _starts(self, position: int) -> Iterator[Callable[[], None]]:
        """Ways to get there, cheapest first: walk on, jump to a keyframe before it, begin again."""
        index = self._timeline.keyframe_before(position)
        here = self._shown or self._coming
        if here is not None and here[0] <= position:
            next_keyframe_is_behind = index < 0 or self._timeline.keyframes[index] <= here[0]
            if next_keyframe_is_behind:
                yield lambda: None
        # Some containers look a moment up by when it is shown, others by when it is decoded.
        if index >= 0:
            yield lambda: self._jump(self._timeline.keyframes[index])
        # More than one, because the frames just before some keyframes need the keyframe before.
        for earlier in range(index, max(index - 3, -1), -1):
            yield lambda earlier=earlier: self._jump(self._timeline.seek_points[earlier])
        yield self._begin_again

    def _is_sound(self, position: int) -> bool:
        frame_position, frame = self._shown
        in_place = frame_position == position or self._stream.codec_context.name in CODECS_WITH_HIDDEN_FRAMES
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
        self._container, self._stream = _open(self._file, self._limits)
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
        not_fed = set(self._on_this_walk) if may_skip else {math.inf}
        for packet in self._container.demux(self._stream):
            if may_skip:
                context.skip_frame = "DEFAULT" if packet.pts in self._positions else "NONREF"
            not_fed.discard(packet.pts)
            try:
                # The decoder holds frames back to put them in order; at the end of a walk it is asked for them.
                frames = packet.decode() + ([] if not_fed else context.decode(None))
            except MemoryError:
                raise
            except FFmpegError:
                # What follows may be built on the lost packet; it is judged where a frame is chosen.
                self._is_damaged = True
                frames = []
            for frame in frames:
                _check_size(frame.width, frame.height, self._limits)
                position = next(positions, None) if self._timeline.is_counted else frame.pts
                if position is not None:
                    yield position, frame
            if not not_fed:
                return


def _upright(frame: VideoFrame) -> np.ndarray:
    """uint8 RGB [height, width, 3], turned as the file says it is to be shown."""
    # One thread, for starting several takes longer than the conversion itself.
    image = frame.reformat(format="rgb24", interpolation=REPEATABLE, threads=1).to_ndarray()
    return np.rot90(image, k=round(frame.rotation / 90) % 4)


# ---- the child process


def _serve(limits: Limits, requests: BinaryIO, replies: BinaryIO) -> None:
    """Answer requests until the parent closes the pipe."""
    write_message(replies, {"ready": True})
    while (request := read_message(requests)) is not None:
        settings = FrameSettings(**request["settings"])
        _limit_processor_time(limits.timeout_s)
        try:
            with _open_source(request, requests) as file:
                clip = decode_clip(file, settings, limits, request["part"])
        except _Refusal as refusal:
            write_message(replies, {"status": refusal.status, "reason": str(refusal)})
        except MemoryError:
            reason = f"needs more than {limits.memory_mb} MB: scale it down or raise frames.memory_mb"
            write_message(replies, {"status": "out_of_memory", "reason": reason})
            return
        except FFmpegError as error:
            write_message(replies, {"status": "broken", "reason": f"cannot be decoded: {error.strerror}"})
        except OSError as error:
            write_message(replies, {"status": "unreadable", "reason": f"cannot be read: {error.strerror}"})
        else:
            header = {"times": clip.times, "cuts": clip.cuts, "duration_s": clip.duration_s}
            write_message(replies, header, clip.frames.tobytes())


def _open_source(request: dict[str, Any], requests: BinaryIO) -> BinaryIO:
    """The request's bytes, or its path opened once and judged by what was opened, not by its name."""
    if request["path"] is None:
        return io.BytesIO(requests.read(request["num_bytes"]))
    try:
        # Without O_NONBLOCK opening a FIFO waits for a writer for ever.
        descriptor = os.open(request["path"], os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise _Refusal("missing", "does not exist") from None
    except OSError as error:
        raise _Refusal("unreadable", f"cannot be opened: {error.strerror}") from None
    except ValueError:
        raise _Refusal("unreadable", "cannot be opened: its name holds a NUL") from None
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_size > 0:
        return os.fdopen(descriptor, "rb", buffering=0)
    os.close(descriptor)
    if stat.S_ISREG(status.st_mode):
        raise _Refusal("not_a_video", "is empty")
    raise _Refusal("unreadable", "is not a regular file")


def _limit_processor_time(timeout_s: float) -> None:
    """A bound that holds even when the parent that watches the clock is gone."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = math.ceil(used.ru_utime + used.ru_stime + timeout_s) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def _child_main(argv: list[str]) -> None:
    # An interrupt reaches the whole process group; it is the parent that decides what to do about it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    limits, parent = Limits(**json.loads(argv[0])), int(argv[1])
    # Whatever a library prints must not end up among the replies.
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    import cv2
    import scenedetect.detectors  # noqa: F401  (loaded before memory is limited and the first clip waits)

    cv2.setNumThreads(1)
    leave_with(parent)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (limits.memory_mb << 20, limits.memory_mb << 20))
    _serve(limits, sys.stdin.buffer, replies)


# ---- the parent


class Decoder:
    """A child process that decodes one clip after another, replaced when a clip takes it down.

    Use as a context manager. One call at a time; a second thread waits for the first.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._is_closed = False

    def __enter__(self) -> Decoder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child, also while another thread waits for it."""
        self._is_closed = True
        process = self._process
        if process is not None:
            process.kill()
        with self._lock:
            self._discard()

    def read(
        self,
        source: Path | bytes,
        settings: FrameSettings,
        name: str | None = None,
        part: tuple[float, float] | None = None,
    ) -> ClipFrames:
        """The clip's frames, or those of a part of it (start and end in s, an end of 0 is the clip's).

        Raises VideoError; its text shows `name`, or the path as it was given.
        """
        if name is None:
            name = "upload" if isinstance(source, bytes) else str(source)
        shown = repr(name if len(name) <= 80 else name[:77] + "...")
        if isinstance(source, bytes) and not source:
            raise VideoError("not_a_video", f"video {shown} is empty.")
        with self._lock:
            result = self._ask(source, settings, part)
        if isinstance(result, _Refusal):
            raise VideoError(result.status, f"video {shown} {result}.")
        return result

    def _ask(
        self, source: Path | bytes, settings: FrameSettings, part: tuple[float, float] | None
    ) -> ClipFrames | _Refusal:
        process = self._running()
        late = threading.Event()

        def stop() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(self._limits.timeout_s, stop)
        timer.start()
        result: ClipFrames | _Refusal | None = None
        try:
            # A child that refuses a clip before it has read it all still has an answer waiting.
            with suppress(BrokenPipeError):
                _send_source(process.stdin, source, settings, part)
            result = _receive_clip(process.stdout, settings)
            if result is None:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=1)
        finally:
            timer.cancel()
            timer.join()
            # Also after an interrupt: a reply half read would be taken for the next clip's.
            has_left = isinstance(result, _Refusal) and result.status == "out_of_memory"
            if result is None or has_left or late.is_set():
                self._discard()
        return result or self._explain_end(process.returncode, late.is_set())

    def _explain_end(self, returncode: int, is_late: bool) -> _Refusal:
        if is_late or returncode == -signal.SIGXCPU:
            limit = f"{self._limits.timeout_s:g} s"
            return _Refusal("timeout", f"took more than {limit} to decode: shorten it or raise frames.timeout_s")
        if self._is_closed:
            return _Refusal("unreadable", "was not read: its decoder was closed")
        if returncode == -signal.SIGKILL:
            return _Refusal("out_of_memory", "was stopped by the system: free memory or lower frames.workers")
        return _Refusal("broken", f"ended the decoding process with status {returncode}: fetch it again")

    def _running(self) -> subprocess.Popen[bytes]:
        if self._is_closed:
            raise InputError("this decoder is closed: open another one.")
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._discard()
        self._process = process = _start_child(self._limits)
        if not children.is_ready(process):
            self._discard()
            limit = self._limits.memory_mb
            raise InputError(f"the decoding process did not start with frames.memory_mb={limit}: raise it.")
        return process

    def _discard(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            children.end(process)


def _start_child(limits: Limits) -> subprocess.Popen[bytes]:
    """The child gets the few variables that it needs: what decodes strangers' files sees no secrets."""
    kept = ("PATH", "HOME", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    # Threads and their memory arenas would use up the limit on address space.
    environment |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
    return children.start("cinetune.video", asdict(limits), environment)


def _send_source(
    pipe: BinaryIO, source: Path | bytes, settings: FrameSettings, part: tuple[float, float] | None
) -> None:
    is_path = not isinstance(source, bytes)
    header = {
        "path": str(source.absolute()) if is_path else None,
        "num_bytes": 0 if is_path else len(source),
        "settings": settings.to_dict(),
        "part": part,
    }
    write_message(pipe, header, b"" if is_path else source)


def _receive_clip(pipe: BinaryIO, settings: FrameSettings) -> ClipFrames | _Refusal | None:
    """The child's answer, its shape known in advance; None when the child ended before it was whole."""
    header = read_message(pipe)
    if header is None:
        return None
    if "status" in header:
        return _Refusal(str(header["status"]), str(header["reason"]))
    shape = (settings.num_frames, settings.size, settings.size, 3)
    content = pipe.read(math.prod(shape))
    if len(content) < math.prod(shape):
        return None
    return ClipFrames(
        frames=np.frombuffer(content, dtype=np.uint8).reshape(shape),
        times=tuple(header["times"]),
        cuts=tuple(header["cuts"]),
        duration_s=header["duration_s"],
    )


def read_many(
    paths: Iterable[tuple[str, Path | VideoError]], settings: FrameSettings, limits: Limits, workers: int
) -> Iterator[tuple[str, ClipFrames | VideoError]]:
    """(name, frames or why there are none) of many videos, in the order given, by `workers` children.

    What was refused before it was looked for keeps its place in the order.
    """
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(workers))
        idle: queue.SimpleQueue[Decoder] = queue.SimpleQueue()
        for _ in range(workers):
            idle.put(stack.enter_context(Decoder(limits)))
        stack.callback(pool.shutdown, wait=False, cancel_futures=True)

        def read(name: str, path: Path | VideoError) -> ClipFrames | VideoError:
            if isinstance(path, VideoError):
                return path
            decoder = idle.get()
            try:
                return decoder.read(path, settings, name)
            except VideoError as error:
                return error
            finally:
                idle.put(decoder)

        waiting: deque[tuple[str, Future[ClipFrames | VideoError]]] = deque()
        for name, path in paths:
            waiting.append((name, pool.submit(read, name, path)))
            # Enough ahead to keep every child busy while a slow clip holds up the order.
            if len(waiting) >= 4 * workers:
                first, future = waiting.popleft()
                yield first, future.result()
        for name, future in waiting:
            yield name, future.result()


# ---- writing


def encode(path: Path, frames: Iterable[np.ndarray], fps: int | Fraction) -> None:
    """Write uint8 RGB [height, width, 3] frames as H.264 MP4; the same frames give the same bytes.

    Raises InputError for no frames, frames of several sizes and odd sizes.
    """
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        with unfinished.open("wb") as file:
            _encode(file, frames, Fraction(fps))
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _encode(file: BinaryIO, frames: Iterable[np.ndarray], fps: Fraction) -> None:
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise InputError("a video needs at least one frame.")
    height, width = first.shape[:2]
    if height % 2 or width % 2:
        raise InputError(f"a video's width and height must be even, got {width} x {height}.")
    # Bit-exact mode and one thread: no dates, no names of programs, no race between threads in the file.
    with av.open(file, mode="w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = 1 / fps
        stream.codec_context.thread_count = 1
        stream.codec_context.gop_size = round(4 * fps)
        stream.options = {"crf": "30", "preset": "veryslow", "flags": "+bitexact"} | REPEATABLE_X264
        container.start_encoding()
        # The encoder describes itself and its settings in the first frame, 5 % of a clip of ten seconds.
        strip = BitStreamFilterContext("filter_units=remove_types=6", stream)
        for number, image in enumerate(itertools.chain([first], frames)):
            if image.shape != first.shape:
                raise InputError(f"a video's frames must have one size, got {first.shape} and {image.shape}.")
            frame = VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame = frame.reformat(format="yuv420p", interpolation=REPEATABLE, threads=1)
            frame.pts = number
            for packet in stream.encode(frame):
                container.mux(strip.filter(packet))
        for packet in stream.encode(None):
            container.mux(strip.filter(packet))


if __name__ == "__main__":
    _child_main(sys.argv[1:])
