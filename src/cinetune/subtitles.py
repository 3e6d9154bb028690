"""What is said in a part of a film: from an SRT, VTT or plain text file, or from the film's own subtitle track.

A film is a stranger's file, so its track is read in a child process within bounds; `python -m cinetune.subtitles`
is that child.
"""

from __future__ import annotations

import html
import json
import math
import os
import re
import resource
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cinetune.errors import InputError

MOST_BYTES = 16 << 20
MOST_CUES = 50_000
MEMORY_BYTES = 1 << 30
SUFFIXES = (".srt", ".vtt", ".txt")

TIME = r"(?:(\d+):)?(\d{1,2}):(\d{2})[.,](\d{1,3})"
TIMES = re.compile(rf"^\s*{TIME}\s*-->\s*{TIME}(?:\s.*)?$")
# Markup that people do not say: tags, ASS override blocks.
MARKUP = re.compile(r"<[^<>\n]{0,100}>|\{\\[^{}\n]{0,200}\}")


@dataclass(frozen=True)
class Cue:
    """Words and when they are shown, in seconds."""

    start_s: float
    end_s: float
    text: str


def read_file(path: Path, start_s: float, end_s: float) -> str:
    """The words of a subtitle file between two moments, a line each; those of plain text have no times.

    Raises InputError for what is too large or not text.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise InputError(f"subtitles {str(path)!r} cannot be read: {error.strerror}.") from None
    if len(content) > MOST_BYTES:
        raise InputError(f"subtitles {str(path)!r} are above the limit of {MOST_BYTES >> 20} MB: cut them.")
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        raise InputError(f"subtitles {str(path)!r} are not UTF-8 text: convert them.") from None
    return _words(parse(text), start_s, end_s) if _is_timed(text) else text.strip()


def parse(text: str) -> list[Cue]:
    """The cues of SRT or WebVTT; what belongs to none (numbers, notes, styles) is passed over."""
    cues: list[Cue] = []
    for block in re.split(r"\n\s*\n", text.replace("\r\n", "\n").replace("\r", "\n")):
        lines = block.split("\n")
        found = ((number, TIMES.match(line)) for number, line in enumerate(lines))
        at, times = next(((number, match.groups()) for number, match in found if match), (0, None))
        if times is None:
            continue
        words = [_clean(line) for line in lines[at + 1 :]]
        spoken = " ".join(line for line in words if line)
        if spoken:
            cues.append(Cue(_seconds(times[:4]), _seconds(times[4:]), spoken))
    return cues


def embedded(path: Path, start_s: float, end_s: float, timeout_s: float) -> str:
    """The words of a film's first subtitle track that is text; none where it has no such track.

    Raises InputError when it cannot be read within the bounds.
    """
    kept = ("PATH", "HOME", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    package_root = str(Path(__file__).resolve().parents[1])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [package_root, os.environ.get("PYTHONPATH")]))
    environment |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
    command = [sys.executable, "-P", "-m", "cinetune.subtitles", str(path.absolute()), str(math.ceil(timeout_s))]
    try:
        done = subprocess.run(command, capture_output=True, env=environment, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        raise InputError(
            f"the subtitles of {str(path)!r} took more than {timeout_s:g} s to read: give them as a file."
        ) from None
    if done.returncode:
        raise InputError(f"the subtitles of {str(path)!r} cannot be read: give them as a file, or as plain text.")
    return _words([Cue(*cue) for cue in json.loads(done.stdout)], start_s, end_s)


def _is_timed(text: str) -> bool:
    return any(TIMES.match(line) for line in text.splitlines())


def _seconds(parts: Sequence[str | None]) -> float:
    hours, minutes, seconds, fraction = (part or "0" for part in parts)
    return int(hours) * 3600 + int(minutes) * 60 + int(seconds) + int(fraction.ljust(3, "0")) / 1000


def _clean(line: str) -> str:
    return " ".join(html.unescape(MARKUP.sub("", line)).split())


def _words(cues: Sequence[Cue], start_s: float, end_s: float) -> str:
    """Lines of the cues that are shown at some moment of the part, without those that repeat the line before."""
    lines: list[str] = []
    for cue in sorted(cues, key=lambda cue: cue.start_s):
        if cue.end_s > start_s and cue.start_s < end_s and cue.text not in lines[-1:]:
            lines.append(cue.text)
    return "\n".join(lines)


# ---- the child process


def _read_track(path: str) -> list[tuple[float, float, str]]:
    import av

    from cinetune.video import OPEN_OPTIONS

    cues: list[tuple[float, float, str]] = []
    with (
        os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file,
        av.open(file, options=OPEN_OPTIONS, metadata_errors="replace") as container,
    ):
        for stream in container.streams.subtitles:
            for packet in container.demux(stream):
                if packet.pts is None or not packet.size or len(cues) >= MOST_CUES:
                    continue
                found = stream.codec_context.decode2(packet)
                rects = [rect for rect in (found or ()) if rect.type in (b"ass", b"text")]
                words = [_of_ass(rect.ass or rect.text) for rect in rects]
                start = float(packet.pts * packet.time_base)
                end = start + float((packet.duration or 0) * packet.time_base)
                cues += [(start, end, line) for line in words if line]
            if cues:
                break
            container.seek(0)
    return cues


def _of_ass(line: bytes) -> str:
    """The words of an ASS event: its ninth field, with `\\N` for a new line."""
    text = line.decode("utf-8", "replace")
    fields = text.removeprefix("Dialogue:").split(",", 8)
    return _clean(re.sub(r"\\[Nnh]", " ", fields[-1] if len(fields) == 9 else text))


def _child_main(path: str, seconds: str) -> None:
    import av  # noqa: F401  (loaded before memory is limited)

    for kind, most in (
        (resource.RLIMIT_CPU, int(seconds) + 1),
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (most, most))
    cues = _read_track(path)
    # It is a pipe, to which the limit on files does not apply.
    sys.stdout.write(json.dumps(cues))


if __name__ == "__main__":
    _child_main(*sys.argv[1:])
