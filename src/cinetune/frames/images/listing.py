"""The images of a clip in a folder: their order and moments, told by their names, and which of them are looked at.

Names hold a time (`12.5s.jpg`, `12500ms.png`, `shot-00:01:02.500.webp`, `12.50.jpg`), or a number, the last one in
them (`frame_0001.jpg`).
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cinetune.frames.limits import Refusal
from cinetune.frames.sampling import FrameSettings, choose_times

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
NUMBER = r"(?<![\d.])\d+"
CLOCK = re.compile(r"(?<!\d)(\d+):([0-5]\d):([0-5]\d(?:\.\d+)?)$")
SECONDS = re.compile(rf"({NUMBER}(?:\.\d+)?)s$")
MILLISECONDS = re.compile(rf"({NUMBER})ms$")
DECIMAL = re.compile(rf"({NUMBER}\.\d+)$")
LAST_NUMBER = re.compile(r"(\d+)\D*$")
# Raise it when the same images would give other frames.
CODE = ("decoder", "listing", "worker")


@dataclass(frozen=True)
class Listing:
    """Images in their order; times in s, one each, and the end of the last one."""

    paths: tuple[Path, ...]
    times: tuple[float, ...]
    end_s: float


def read(folder: Path, images_per_s: float) -> Listing:
    """The images of a folder; `images_per_s` gives times to numbered ones.

    Raises Refusal for a folder that is missing or has none, and for names without an order.
    """
    if not folder.is_dir():
        raise Refusal("missing", "is no folder of images")
    paths = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")]
    if not paths:
        raise Refusal("missing", f"holds no image: put {', '.join(SUFFIXES)} files there")
    times = {path: _time_in(path.stem) for path in paths}
    if None in times.values():
        if any(time_s is not None for time_s in times.values()):
            timeless = min(path.name for path, time_s in times.items() if time_s is None)
            raise Refusal("unreadable", f"has times in some names and none in {timeless!r}: name all in one way")
        return _numbered(paths, images_per_s)
    known = {path: time_s for path, time_s in times.items() if time_s is not None}
    ordered = sorted(known, key=lambda path: (known[path], path.name))
    return timed(ordered, [known[path] for path in ordered])


def timed(paths: Sequence[Path], times: Sequence[float]) -> Listing:
    """Images that are each shown until the next; the last one as long as the others on average, or 1 s."""
    span = times[-1] - times[0]
    if len(set(times)) < len(times):
        raise Refusal("unreadable", "has two images of one moment: give each a time of its own")
    return Listing(tuple(paths), tuple(times), times[-1] + (span / (len(times) - 1) if len(times) > 1 else 1.0))


def cut(images: Listing, start_s: float, end_s: float) -> Listing:
    """Those that are shown between two moments, told as their names tell them; an end of 0 is the clip's.

    Raises Refusal where there are none.
    """
    end_s = min(end_s or images.end_s, images.end_s)
    shown = zip(images.paths, images.times, (*images.times[1:], images.end_s), strict=True)
    kept = [(path, max(since, start_s)) for path, since, until in shown if since < end_s and until > start_s]
    if not kept or start_s >= end_s:
        raise Refusal("too_long", f"ends at {images.end_s:.1f} s: nothing lies between {start_s:g} s and {end_s:g} s")
    paths, times = zip(*kept, strict=True)
    return Listing(paths, times, end_s)


def choose(times: Sequence[float], end_s: float, settings: FrameSettings) -> list[int]:
    """Which images are looked at, `num_frames` of them, ascending; one may come several times.

    Each image counts as a shot: under the policy "shots" none is left out while there is room for it.
    """
    start = times[0]
    moments = choose_times(end_s - start, [time_s - start for time_s in times[1:]], settings)
    return [bisect_right(times, start + moment) - 1 for moment in moments]


def digest(folder: Path, images_per_s: float, digest_of: Callable[[Path], str]) -> str:
    """Another one whenever the clip would give other frames or times; empty where there are none."""
    try:
        images = read(folder, images_per_s)
    except Refusal:
        return ""
    total = hashlib.sha256(f"{_code_digest()} {images.times} {images.end_s}\n".encode())
    for path in images.paths:
        total.update(f"{path.name}\0{digest_of(path) if path.is_file() else ''}\n".encode("utf-8", "surrogateescape"))
    return total.hexdigest()


@cache
def _code_digest() -> str:
    folder = Path(__file__).parent
    return hashlib.sha256(b"\0".join((folder / f"{name}.py").read_bytes() for name in CODE)).hexdigest()


def _time_in(stem: str) -> float | None:
    """In s; None where the name has none."""
    if clock := CLOCK.search(stem):
        return 3600 * int(clock[1]) + 60 * int(clock[2]) + float(clock[3])
    if milliseconds := MILLISECONDS.search(stem):
        return int(milliseconds[1]) / 1000
    seconds = SECONDS.search(stem) or DECIMAL.search(stem)
    return float(seconds[1]) if seconds else None


def _numbered(paths: Sequence[Path], images_per_s: float) -> Listing:
    numbers: dict[int, Path] = {}
    for path in sorted(paths):
        found = LAST_NUMBER.search(path.stem)
        if not found:
            raise Refusal("unreadable", f"has no number or time in the name {path.name!r}: number the images")
        other = numbers.setdefault(int(found[1]), path)
        if other != path:
            raise Refusal("unreadable", f"has two images of one number, {other.name!r} and {path.name!r}: keep one")
    ordered = [numbers[number] for number in sorted(numbers)]
    times = [place / images_per_s for place in range(len(ordered))]
    return Listing(tuple(ordered), tuple(times), len(ordered) / images_per_s)
