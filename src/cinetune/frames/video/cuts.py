"""Where shots begin, by the content score of PySceneDetect between neighbouring frames that are made small.

Decoding every frame costs more than a dozen exact frames, so H.264 is looked at roughly first: without the loop filter,
and without frames on which no other is built, unless the sizes of packets around them stand out. Where a rough score
comes near the threshold, and in the dark, exact ones decide.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator
from typing import BinaryIO

import cv2
import numpy as np
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from cinetune.frames.limits import Limits, Refusal, check_size
from cinetune.frames.sampling import FrameSettings
from cinetune.frames.video.playhead import Playhead, open_video
from cinetune.frames.video.timeline import Coded, Timeline

CUT_DETECTION_PIXELS = 160
# Rough scores this far from the threshold, as a share of it, are believed.
DOUBT = 0.25
# Mean brightness below which hue and saturation jump from frame to frame, so that all between two are looked at.
DARK = 48
# Of the frames, above which a rough look has not spared enough.
MAX_DOUBTFUL = 0.3
# Packets around, with whose median size a packet is compared; and how many times that it is to stand out. One that does
# not but begins a shot is found by its score, which then costs more.
WINDOW = 9
STANDS_OUT, OTHERS_STAND_OUT = 2.2, 1.4
# The number of a frame, how many frames before it the one stands that it is compared with, and how much they differ.
Score = tuple[int, int, float]


def find_cuts(
    file: BinaryIO, timeline: Timeline, settings: FrameSettings, limits: Limits, start: float, end: float
) -> tuple[float, ...]:
    """Seconds at which a new shot begins, between two moments."""
    is_whole = start == 0 and end >= timeline.duration_s
    rough = rough_scores(file, timeline, limits) if is_whole else []
    doubtful = {
        frame
        for number, gap, score in rough
        if _is_doubtful(gap, score, settings.cut_threshold)
        for frame in range(number - gap, number + 1)
    }
    if not rough or len(doubtful) > MAX_DOUBTFUL * len(timeline.positions):
        return find_cuts_in_all(file, timeline, settings, limits, start, end)
    wanted = [timeline.positions[number] for number in sorted(doubtful)]
    with Playhead(file, timeline, limits, open_video(file, limits), wanted) as playhead:
        exact = _ExactScores(playhead, timeline)
        return tuple(timeline.seconds(timeline.positions[number]) for number in _decide(rough, settings, exact))


def find_cuts_in_all(
    file: BinaryIO, timeline: Timeline, settings: FrameSettings, limits: Limits, start: float, end: float
) -> tuple[float, ...]:
    """The same from the exact scores of all frames."""
    positions, scores = _all_scores(file, timeline, limits, start, end)
    return tuple(timeline.seconds(positions[number]) for number in _decide(scores, settings, None))


def _is_doubtful(gap: int, score: float, threshold: float) -> bool:
    return score > (1 - DOUBT) * threshold and (gap > 1 or score < (1 + DOUBT) * threshold)


def _decide(scores: Iterable[Score], settings: FrameSettings, exact: _ExactScores | None) -> Iterator[int]:
    """Numbers of the frames with which shots begin; a shot shorter than `min_shot_frames` is joined to the one before.

    Without exact scores those that are there are taken for it.
    """
    last = 0
    for number, gap, score in scores:
        for each in range(max(number - gap + 1, last + settings.min_shot_frames), number + 1):
            if exact is not None and _is_doubtful(gap, score, settings.cut_threshold):
                score_of_each = exact.score(each)
            else:
                score_of_each = score if gap == 1 else 0.0
            if score_of_each >= settings.cut_threshold and each - last >= settings.min_shot_frames:
                yield each
                last = each


class _Pictures:
    """Frames made small, of one size as long as the video keeps its own."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()
        self._shape: tuple[int, int] | None = None

    def small(self, frame: VideoFrame) -> np.ndarray:
        """Hue, saturation and brightness, uint8 [height, width, 3]."""
        if self._shape is None:
            scale = min(1.0, CUT_DETECTION_PIXELS / max(frame.width, frame.height))
            self._shape = (max(1, round(frame.width * scale)), max(1, round(frame.height * scale)))
        small = self._reformatter.reformat(frame, *self._shape, format="bgr24", interpolation="AREA", threads=1)
        return cv2.cvtColor(small.to_ndarray(), cv2.COLOR_BGR2HSV)


def difference(before: np.ndarray, after: np.ndarray) -> float:
    """Mean over pixels of the differences in hue, saturation and brightness: PySceneDetect's content score."""
    return cv2.norm(before, after, cv2.NORM_L1) / before.size


class _ExactScores:
    """Scores of exact frames, asked for in ascending order."""

    def __init__(self, playhead: Playhead, timeline: Timeline) -> None:
        self._playhead, self._timeline = playhead, timeline
        self._pictures = _Pictures()
        self._seen: dict[int, np.ndarray] = {}

    def score(self, number: int) -> float:
        return difference(self._picture(number - 1), self._picture(number))

    def _picture(self, number: int) -> np.ndarray:
        if number not in self._seen:
            frame = self._playhead.frame_at(self._timeline.positions[number])
            # The one before is all that is asked for again.
            self._seen = {other: picture for other, picture in self._seen.items() if other == number - 1}
            self._seen[number] = self._pictures.small(frame)
        return self._seen[number]


def _all_scores(
    file: BinaryIO, timeline: Timeline, limits: Limits, start: float, end: float
) -> tuple[list[int], list[Score]]:
    """Positions of all frames between two moments that can be decoded, and the score of each but the first."""
    positions: list[int] = []
    scores: list[Score] = []
    pictures, before = _Pictures(), None
    with Playhead(file, timeline, limits, open_video(file, limits)) as playhead:
        for position, frame in playhead.frames_from(timeline.shown_at(start) if start > 0 else None):
            if timeline.seconds(position) >= end:
                break
            after = pictures.small(frame)
            if before is not None:
                scores.append((len(positions), 1, difference(before, after)))
            positions.append(position)
            before = after
    if not positions:
        raise Refusal("broken", "holds no frame that can be decoded: fetch it again")
    return positions, scores


def rough_scores(file: BinaryIO, timeline: Timeline, limits: Limits) -> list[Score]:
    """Scores from frames without the loop filter, most others left out; nothing where that is not to be trusted."""
    wanted = _worth_a_look(timeline)
    numbers = {position: number for number, position in enumerate(timeline.positions)}
    if not wanted or len(numbers) < len(timeline.positions):
        return []
    container, stream = open_video(file, limits)
    context = stream.codec_context
    context.options = {**context.options, "skip_loop_filter": "all"}
    pictures, scores = _Pictures(), []
    before, last = None, -1
    with container:
        # In small pictures comparing costs as much as decoding.
        if context.name != "h264" or max(context.width, context.height) <= 2 * CUT_DETECTION_PIXELS:
            return []
        for packet in container.demux(stream):
            context.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
            try:
                frames = packet.decode()
            except MemoryError:
                raise
            except FFmpegError:
                return []
            for frame in frames:
                check_size(frame.width, frame.height, limits)
                number = -1 if frame.pts is None else numbers.get(frame.pts, -1)
                if number <= last or frame.is_corrupt:
                    return []
                after = pictures.small(frame)
                if before is not None:
                    is_dark = number - last > 1 and min(before[..., 2].mean(), after[..., 2].mean()) < DARK
                    score = math.inf if is_dark else difference(before, after)
                    scores.append((number, number - last, score))
                before, last = after, number
    is_complete = bool(scores) and scores[0][0] == scores[0][1] and last == len(numbers) - 1
    return scores if is_complete else []


def _worth_a_look(timeline: Timeline) -> set[int]:
    """Positions of the frames that are shown later than all those before them in the file.

    Where a packet is larger than its neighbours, a shot may begin: there of all frames.
    """
    groups: list[list[Coded]] = []
    for coded in timeline.coded:
        if not groups or coded.position > groups[-1][0].position:
            groups.append([])
        groups[-1].append(coded)
    if not groups:
        return set()
    first = np.array([group[0].num_bytes for group in groups], dtype=float)
    others = np.array([max((coded.num_bytes for coded in group[1:]), default=0) for group in groups], dtype=float)
    keyframes = np.array([group[0].is_keyframe for group in groups])
    usual = _usual(np.where(keyframes, np.nan, first))
    stands_out = keyframes | (first > STANDS_OUT * usual)
    # A flash in a frame on which none is built costs more than the frame after it.
    stands_out |= (others > first) | (others > OTHERS_STAND_OUT * np.maximum(_usual(others), usual / 10))
    return {
        coded.position
        for group, is_outstanding in zip(groups, stands_out, strict=True)
        for coded in (group if is_outstanding else group[:1])
    }


def _usual(sizes: np.ndarray) -> np.ndarray:
    """The median of those around each; 0 where there is none."""
    padded = np.pad(sizes, WINDOW // 2, constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nan_to_num(np.nanmedian(windows, axis=1))
