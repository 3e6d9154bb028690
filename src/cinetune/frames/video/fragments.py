"""How long a fragmented MP4 says it is, and whether its last box is whole.

FFmpeg takes such a file for as long as the fragments that are there.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from fractions import Fraction
from typing import BinaryIO

from cinetune.frames.limits import Refusal

# Of the box with the index, of which a fragmented file's holds no frames.
MAX_INDEX_BYTES = 1 << 24


def promised_end_s(file: BinaryIO) -> float:
    """When a fragmented MP4's last frame ends by its headers and segment indexes; 0 where they say nothing.

    Also 0 for every other file. Raises Refusal where the last box is not all there.
    """
    num_bytes = file.seek(0, os.SEEK_END)
    ends: list[Fraction] = []
    is_fragmented, reached = False, 0
    for kind, start, end in _boxes(file, 0, num_bytes):
        reached = end
        content = _read(file, start, min(end, num_bytes)) if kind in (b"moov", b"sidx") else b""
        is_fragmented |= kind == b"moof" or (kind == b"moov" and _announces_fragments(content))
        if content:
            ends.append(_end_of_segments(content) if kind == b"sidx" else _end_of_movie(content))
    if is_fragmented and reached != num_bytes:
        raise Refusal("broken", "is cut off in the middle of a fragment: fetch it again")
    return float(max(ends, default=0)) if is_fragmented else 0.0


def _read(file: BinaryIO, start: int, end: int) -> bytes:
    file.seek(start)
    return file.read(end - start) if end - start <= MAX_INDEX_BYTES else b""


def _boxes(file: BinaryIO, start: int, stop: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start of the content and end of every box in a range; the last may end beyond it."""
    while start + 8 <= stop:
        file.seek(start)
        head = file.read(16)
        size, kind, first = int.from_bytes(head[:4], "big"), head[4:8], start + 8
        if size == 1:
            size, first = int.from_bytes(head[8:16], "big"), start + 16
        end = stop if size == 0 else start + size
        if end < first:
            return
        yield kind, first, end
        start = end


def _announces_fragments(content: bytes) -> bool:
    return b"mvex" in {kind for kind, _, _ in _boxes(io.BytesIO(content), 0, len(content))}


def _end_of_movie(content: bytes) -> Fraction:
    """By the movie's header, or by that of its fragments, which knows better."""
    duration, unit = 0, 0
    box = io.BytesIO(content)
    for kind, start, end in _boxes(box, 0, len(content)):
        if kind == b"mvhd":
            duration, unit = _movie_header(content[start:end])
        if kind == b"mvex":
            fragments = {kind: content[first:last] for kind, first, last in _boxes(box, start, min(end, len(content)))}
            duration = max(duration, _numbers(fragments.get(b"mehd", b""), 4, (4, 8))[0])
    return Fraction(duration, unit) if unit else Fraction(0)


def _movie_header(content: bytes) -> tuple[int, int]:
    """Duration and units a second; no duration where it is unknown."""
    is_long = content[:1] == b"\1"
    unit, _ = _numbers(content, 20 if is_long else 12, (4, 4))
    duration, _ = _numbers(content, 24 if is_long else 16, (4, 8))
    return (0 if duration in (0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF) else duration), unit


def _numbers(content: bytes, start: int, widths: tuple[int, int]) -> tuple[int, int]:
    """The number at a place, as wide as the box's version says, and where the next one begins."""
    end = start + widths[content[:1] == b"\1"]
    return int.from_bytes(content[start:end], "big"), end


def _end_of_segments(content: bytes) -> Fraction:
    """By a segment index, which counts its references and their durations."""
    unit = int.from_bytes(content[8:12], "big")
    first, at = _numbers(content, 12, (4, 8))
    _, at = _numbers(content, at, (4, 8))
    count = int.from_bytes(content[at + 2 : at + 4], "big")
    durations = (content[at + 8 + 12 * i : at + 12 + 12 * i] for i in range(count))
    return Fraction(first + sum(int.from_bytes(each, "big") for each in durations), unit) if unit else Fraction(0)
