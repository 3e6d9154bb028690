"""What is said in a part of a film: from an SRT, WebVTT, ASS or plain text file, or from the film's own subtitle track.

A film is an untrusted file, so its track is read in a child process within bounds; `python -m cinetune.data.subtitles`
is that child.
"""

from __future__ import annotations

import html
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pysubs2

from cinetune import sandbox
from cinetune.errors import InputError
from cinetune.sandbox import SINGLE_THREADED, Child, read_message, write_message

MAX_BYTES = 16 << 20
MAX_CUES = 50_000
MEMORY_BYTES = 1 << 30
SUFFIXES = (".srt", ".vtt", ".ass", ".ssa", ".txt")

TIME_LINE = re.compile(r"^.*\d:\d\d[.,]\d+\s*-->", re.MULTILINE)
TIME_IN_WORDS = re.compile(r"<[\d:.]{1,20}>")
BLANK_LINE = re.compile(r"\\N\s*\\N")


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
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"subtitles {str(path)!r} cannot be read: {error.strerror}.") from None
    if len(content) > MAX_BYTES:
        raise InputError(f"subtitles {str(path)!r} are above the limit of {MAX_BYTES >> 20} MB: cut them.")
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        raise InputError(f"subtitles {str(path)!r} are not UTF-8 text: convert them.") from None
    try:
        cues = parse(text)
    except ValueError as error:
        raise InputError(f"subtitles {str(path)!r} cannot be parsed ({error}): convert them to SRT.") from None
    return _words_between(cues, start_s, end_s) if cues or TIME_LINE.search(text) else text.strip()


def parse(text: str) -> list[Cue]:
    """The cues of SRT, WebVTT, SSA or ASS, without what belongs to none (numbers, notes, styles); none in plain text.

    Raises ValueError for times that are none.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if "[Script Info]" in text or "[Events]" in text:
        kind = "ssa" if "[V4 Styles]" in text else "ass"
    elif text.lstrip().startswith("WEBVTT"):
        kind = "vtt"
        # pysubs2 takes a line with two times among its words for the beginning of a cue, and a number at the end of a
        # cue for that of the next one, which it would have in SRT.
        text = TIME_LINE.sub("\n0\n\\g<0>", TIME_IN_WORDS.sub("", text))
    else:
        kind = "srt"
    found = pysubs2.SSAFile.from_string(f"{text}\n\n0\n", format_=kind)
    cues = [Cue(event.start / 1000, event.end / 1000, _words_of(event)) for event in found]
    return [cue for cue in cues if cue.text]


def embedded(path: Path, start_s: float, end_s: float, timeout_s: float) -> str:
    """The words of a film's first subtitle track that is text; none where it has no such track.

    Raises InputError when it cannot be read within the bounds.
    """
    child = Child("cinetune.data.subtitles", {"path": str(path.absolute()), "timeout_s": timeout_s}, SINGLE_THREADED)
    try:
        with child.killed_after(timeout_s) as late:
            reply = read_message(child.replies)
    finally:
        child.close()
    if late.is_set():
        raise InputError(f"the subtitles of {str(path)!r} took more than {timeout_s:g} s to read: give them as a file.")
    if reply is None:
        raise InputError(f"the subtitles of {str(path)!r} cannot be read: give them as a file, or as plain text.")
    return _words_between([Cue(*cue) for cue in reply["cues"]], start_s, end_s)


def _words_of(event: pysubs2.SSAEvent) -> str:
    """On one line, without markup; nothing for comments and drawings. A blank line ends the words."""
    if not event.is_text:
        return ""
    spoken = pysubs2.SSAEvent(text=BLANK_LINE.split(event.text, maxsplit=1)[0]).plaintext
    return " ".join(html.unescape(spoken).split())


def _words_between(cues: Sequence[Cue], start_s: float, end_s: float) -> str:
    """Lines of the cues that are shown at some moment of the part, without those that repeat the line before."""
    lines: list[str] = []
    for cue in sorted(cues, key=lambda cue: cue.start_s):
        if cue.end_s > start_s and cue.start_s < end_s and cue.text not in lines[-1:]:
            lines.append(cue.text)
    return "\n".join(lines)


# ---- the child process


def _read_track(path: str) -> list[tuple[float, float, str]]:
    import av

    from cinetune.frames.video.playhead import OPEN_OPTIONS

    cues: list[tuple[float, float, str]] = []
    with (
        os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file,
        av.open(file, options=OPEN_OPTIONS, metadata_errors="replace") as container,
    ):
        for stream in container.streams.subtitles:
            for packet in container.demux(stream):
                if packet.pts is None or not packet.size or len(cues) >= MAX_CUES:
                    continue
                found = stream.codec_context.decode2(packet)
                rects = [rect for rect in (found or ()) if rect.type in (b"ass", b"text")]
                words = [_words_of(_event(rect.ass or rect.text)) for rect in rects]
                start = float(packet.pts * packet.time_base)
                end = start + float((packet.duration or 0) * packet.time_base)
                cues += [(start, end, line) for line in words if line]
            if cues:
                break
            container.seek(0)
    return cues


def _event(line: bytes) -> pysubs2.SSAEvent:
    """Of a decoded packet: its words are the ninth field."""
    text = line.decode("utf-8", "replace")
    fields = text.split(",", 8)
    return pysubs2.SSAEvent(text=fields[-1] if len(fields) == 9 else text)


def main(argv: list[str]) -> None:
    settings, _, replies = sandbox.enter(argv)
    import av  # noqa: F401  (loaded before memory is limited)

    sandbox.limit(max_file_bytes=0, max_memory_bytes=MEMORY_BYTES)
    sandbox.limit_processor_time(settings["timeout_s"])
    write_message(replies, {"cues": _read_track(settings["path"])})


if __name__ == "__main__":
    main(sys.argv[1:])
