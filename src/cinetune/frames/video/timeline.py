"""When each frame of a video is shown, read from its packets without decoding."""

from __future__ import annotations

import bisect
import itertools
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from cinetune.frames.limits import Limits, Refusal, check_duration
from cinetune.frames.video import h264


class _Packet(NamedTuple):
    pts: int | None
    dts: int | None
    duration: int
    is_keyframe: bool
    is_intra: bool
    num_bytes: int


class Coded(NamedTuple):
    """A frame as the file holds it: where it is shown, and what its packet says."""

    position: int
    num_bytes: int
    is_keyframe: bool


@dataclass(frozen=True)
class Timeline:
    """When each frame is shown, read from the packets without decoding.

    Positions are in steps of `unit` seconds, ascending; of frames that share one, the last is shown. Where not every
    frame carries a timestamp, they are counted instead: the first frame decoded stands at the first position, and so
    on. Decoding can begin at the keyframes that are `entries`, which are found at `seek_points`. `coded` are the frames
    in the order of the file, none where they are counted.
    """

    is_counted: bool
    unit: Fraction
    positions: list[int]
    end: int
    keyframes: list[int]
    entries: list[int]
    seek_points: list[int]
    coded: list[Coded]

    @property
    def duration_s(self) -> float:
        return float((self.end - self.positions[0]) * self.unit)

    def uncertain_end_s(self, rate: Fraction) -> float:
        """How far the end may be off: half a frame at a steady rate, else the longest frame."""
        gaps = (later - earlier for earlier, later in itertools.pairwise(self.positions))
        longest = float(max(gaps, default=0) * self.unit)
        return longest if longest > 1.5 / rate else float(0.5 / rate)

    def seconds(self, position: int) -> float:
        """Since the first frame."""
        return float((position - self.positions[0]) * self.unit)

    def shown_at(self, time_s: float) -> int:
        """Position of the last frame that begins no later than `time_s`, give or take a microsecond."""
        steps = math.floor((Fraction(time_s) + Fraction(1, 1_000_000)) / self.unit)
        index = bisect.bisect_right(self.positions, self.positions[0] + steps)
        return self.positions[max(index - 1, 0)]

    def num_at(self, position: int) -> int:
        """How many frames share a position."""
        return bisect.bisect_right(self.positions, position) - bisect.bisect_left(self.positions, position)

    def entry_before(self, position: int) -> int:
        """Index of the last keyframe that is shown no later and from which decoding can begin; -1 without one."""
        return bisect.bisect_right(self.entries, position) - 1

    def nearest_keyframe(self, time_s: float) -> int:
        """Position of the keyframe shown nearest to a time."""
        wanted = self.shown_at(time_s)
        return min(self.keyframes, key=lambda keyframe: abs(keyframe - wanted))


def read_timeline(
    container: InputContainer, stream: VideoStream, limits: Limits, fragments_end_s: float = 0.0
) -> Timeline:
    """Read every packet's timestamp; the container is at its end afterwards.

    fragments_end_s: when a fragmented MP4 says that it ends. Refuses what is too long, cut off, or promises more than
    it holds.
    """
    unit = stream.time_base or Fraction(1, 1000)
    is_avi, is_mp4 = container.format.name == "avi", "mp4" in container.format.name
    promised_s = _promised_seconds(container, stream)
    check_duration(promised_s, limits)
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
                raise Refusal("broken", "is cut off, its last frames are missing: fetch it again")
            packets.append(
                _Packet(
                    packet.pts,
                    packet.dts,
                    max(duration, 0),
                    packet.is_keyframe,
                    _is_intra(stream, packet),
                    packet.size,
                )
            )
            if len(packets) > limits.max_frames:
                raise Refusal("too_long", f"has more than {limits.max_frames} frames: cut it")
    rate = stream.average_rate or stream.guessed_rate or Fraction(25)
    end_s = max(float(end * (other.time_base or 0)) for other, end in ends.items())
    if not packets:
        raise Refusal("broken", "holds no frames: fetch it again")
    if num_read < num_listed:
        raise Refusal("broken", f"holds {num_read} of its {num_listed} frames: fetch it again")
    # AVI stores no timestamps; those that FFmpeg makes up are wrong where frames are reordered.
    timeline = _arrange(packets, unit, rate, has_stamps=not is_avi)
    check_duration(timeline.duration_s, limits)
    held_s = timeline.duration_s if is_avi else max(end_s, timeline.duration_s)
    if is_mp4:
        # It may hide a part of its frames on purpose and was judged by its index, which knows nothing of fragments.
        _check_end(fragments_end_s, held_s, max(timeline.uncertain_end_s(rate), min(1.0, 0.02 * fragments_end_s)))
    else:
        _check_end(promised_s, held_s, timeline.uncertain_end_s(rate))
    return timeline


def _check_end(promised_s: float, held_s: float, uncertain_s: float) -> None:
    if promised_s - held_s > uncertain_s:
        reason = f"is cut off, it promises {promised_s:.1f} s and holds {held_s:.1f} s: fetch it again"
        raise Refusal("broken", reason)


def _is_intra(stream: VideoStream, packet: Packet[Any]) -> bool:
    """Whether decoding can begin with a packet; in codecs other than H.264 with every keyframe."""
    context = stream.codec_context
    return packet.is_keyframe and (context.name != "h264" or h264.is_intra(memoryview(packet), context.extradata))


def _promised_seconds(container: InputContainer, stream: VideoStream) -> float:
    """The duration that the header states, 0 where it states none."""
    if container.format.name == "avi" and stream.frames and stream.average_rate:
        # Its duration is corrected by the size of the file, and so never shows that the end is missing.
        return float(stream.frames / stream.average_rate)
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return (container.duration or 0) / av.time_base


def _arrange(packets: list[_Packet], unit: Fraction, rate: Fraction, has_stamps: bool) -> Timeline:
    """A timeline by timestamps, of which some may repeat; by counting where one is missing or all are the same."""
    stamps = [packet.pts for packet in packets]
    is_counted = not has_stamps or None in stamps or not _tell_apart(stamps)
    if is_counted:
        # Order of decoding is not order of showing, but the same moments are taken up in both.
        stamps = [packet.dts if packet.pts is None or not has_stamps else packet.pts for packet in packets]
    if not _tell_apart(stamps):
        stamps, unit = list(range(len(packets))), 1 / rate
        packets = [packet._replace(duration=1) for packet in packets]
    shown_for = max(1, round(1 / rate / unit))
    positions = _filled(stamps, shown_for)
    last = max(range(len(packets)), key=lambda place: (positions[place], place))
    keyframes = {packet.pts: packet for packet in packets if packet.is_keyframe and packet.pts is not None}
    in_order = [] if is_counted else sorted(keyframes)
    entries = [pts for pts in in_order if keyframes[pts].is_intra]
    decoded_at = {pts: keyframes[pts].dts for pts in entries}
    return Timeline(
        is_counted=is_counted,
        unit=unit,
        positions=sorted(positions),
        end=positions[last] + (packets[last].duration or shown_for),
        keyframes=in_order,
        entries=entries,
        seek_points=[pts if dts is None else min(pts, dts) for pts, dts in decoded_at.items()],
        coded=[
            Coded(packet.pts, packet.num_bytes, packet.is_keyframe)
            for packet in packets
            if packet.pts is not None and not is_counted
        ],
    )


def _tell_apart(stamps: list[int | None]) -> bool:
    """Whether timestamps say anything: one alone does, several where they are not all the same."""
    known = {stamp for stamp in stamps if stamp is not None}
    return len(known) >= min(2, len(stamps))


def _filled(stamps: list[int | None], step: int) -> list[int]:
    """The timestamps, missing ones evenly between their neighbours in the file and `step` apart at its ends."""
    known = [(place, stamp) for place, stamp in enumerate(stamps) if stamp is not None]
    if len(known) == len(stamps):
        return [stamp for _, stamp in known]
    count = len(stamps)
    (first, earliest), (last, latest) = known[0], known[-1]
    known = [(first - count, earliest - count * step), *known, (last + count, latest + count * step)]
    places, values = zip(*known, strict=True)
    return [round(value) for value in np.interp(range(count), places, values)]
