"""Our frames beside FFmpeg's own output, on made files of many codecs, containers, timestamps and display matrices.

    python benchmarks/parity.py [--write]

Needs `ffmpeg` on the path; what its build cannot encode is left out and named. `--write` puts the table into
docs/frames.md. A frame counts as right when, of all that FFmpeg shows, it is closest to the one shown at that time.
"""

from __future__ import annotations

import argparse
import re
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from cinetune.frames.decoder import Decoder
from cinetune.frames.limits import Limits, VideoError
from cinetune.frames.sampling import FrameSettings, fit

HEIGHT, WIDTH, FPS, COUNT = 64, 96, 12, 72
SETTINGS = FrameSettings("uniform", num_frames=24, size=32, cut_threshold=27.0, min_shot_frames=15)
LIMITS = Limits(timeout_s=60.0, max_megapixels=9.0, max_duration_s=900.0, memory_mb=2048, max_frames=108_000)
DOCUMENT = Path(__file__).resolve().parents[1] / "docs/frames.md"
BEGIN, END = "<!-- parity: begin -->\n", "<!-- parity: end -->\n"
X264 = ("-c:v", "libx264", "-preset", "veryfast", "-crf", "18")
X265 = ("-c:v", "libx265", "-preset", "ultrafast", "-tag:v", "hvc1", "-x265-params")
VP8 = ("-c:v", "libvpx", "-deadline", "realtime", "-b:v", "2M")
VP9 = ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-b:v", "2M")
AV1 = ("-c:v", "libsvtav1", "-preset", "12", "-g", "24")
# Frames at an even pace, then slow, then at twice the pace, where two share a moment once it is rounded.
UNEVEN = "setpts='if(lt(N,24),N,if(lt(N,48),24+(N-24)*3,96+(N-48)*{pace}))/{fps}/TB'"


@dataclass(frozen=True)
class Case:
    """A file: its kind in the table, name, FFmpeg's options, and what is done to its bytes afterwards."""

    kind: str
    name: str
    options: tuple[str, ...]
    patch: Callable[[bytes], bytes] = bytes
    remux: tuple[str, ...] = ()
    before: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """Frames compared, how many were not FFmpeg's, and how far the duration is off in frames."""

    num_frames: int
    num_wrong: int
    duration_off: float
    reason: str = ""

    @property
    def is_right(self) -> bool:
        return not self.reason and not self.num_wrong and self.duration_off <= 1.0


def matrix(a: int, b: int, c: int, d: int) -> Callable[[bytes], bytes]:
    """Puts a display matrix into every track's header."""

    def patched(content: bytes) -> bytes:
        turned = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
        for found in reversed(list(re.finditer(b"tkhd", content))):
            start = found.end() + 40
            content = content[:start] + turned + content[start + 36 :]
        return content

    return patched


def cases() -> Iterator[Case]:
    """The files, by kind."""
    return chain(h264(), other_codecs(), groups_of_pictures(), timestamps(), containers())


def h264() -> Iterator[Case]:
    ways = {
        "plain.mp4": (), "no-b.mp4": ("-bf", "0"), "b.mp4": ("-bf", "3", "-g", "12"), "intra.mp4": ("-g", "1"),
        "one-keyframe.mp4": ("-g", "500", "-bf", "3"), "pyramid.mkv": ("-bf", "7", "-b_strategy", "0", "-refs", "5"),
        "slices.mp4": ("-slices", "4"), "lossless.mp4": ("-qp", "0", "-pix_fmt", "yuv444p"),
        "ten-bit.mp4": ("-pix_fmt", "yuv420p10le"), "b.mov": ("-bf", "3"), "b.mkv": ("-bf", "3"), "b.avi": ("-bf", "3"),
        "no-b.avi": ("-bf", "0"),
    }  # fmt: skip
    for name, options in ways.items():
        yield Case("H.264", name, (*X264, *options))


def other_codecs() -> Iterator[Case]:
    for name in ("closed.mp4", "b.mkv", "ten-bit.mp4", "ten-bit.mkv"):
        pixels = ("-pix_fmt", "yuv420p10le") if name.startswith("ten") else ()
        yield Case("HEVC", name, (*X265, "log-level=none:open-gop=0:keyint=24", *pixels))
    for name in ("plain.webm", "plain.mkv"):
        yield Case("VP8, VP9", f"vp8-{name}", VP8)
        yield Case("VP8, VP9", f"vp9-{name}", VP9)
    alternate = ("-auto-alt-ref", "1", "-lag-in-frames", "16")
    yield Case("VP8, VP9", "vp8-hidden.webm", (*VP8, "-deadline", "good", *alternate))
    yield Case("VP8, VP9", "vp9-hidden.webm", (*VP9, "-deadline", "good", *alternate))
    yield Case("VP8, VP9", "vp9.mp4", VP9)
    for name in ("plain.mp4", "plain.mkv", "plain.webm"):
        yield Case("AV1", name, AV1)
    others = {
        "mpeg4.avi": "mpeg4", "mpeg4.mp4": "mpeg4", "xvid.avi": "libxvid", "mpeg2.mkv": "mpeg2video",
        "mjpeg.mov": "mjpeg", "mjpeg.avi": "mjpeg", "prores.mov": "prores", "ffv1.mkv": "ffv1",
        "huffyuv.avi": "huffyuv", "png.mov": "png", "raw.mov": "rawvideo", "msmpeg4.avi": "msmpeg4",
        "theora.mkv": "libtheora", "flv1.avi": "flv1",
    }  # fmt: skip
    for name, codec in others.items():
        yield Case("other codecs", name, ("-c:v", codec, "-q:v", "3"))
    for name in ("mpeg4.avi", "mpeg4.mp4", "mpeg2.mkv", "mpeg2.mp4"):
        codec = "mpeg4" if name.startswith("mpeg4") else "mpeg2video"
        yield Case("other codecs", f"b-{name}", ("-c:v", codec, "-bf", "2", "-q:v", "3"))


def groups_of_pictures() -> Iterator[Case]:
    for name in ("open.mp4", "open.mkv"):
        yield Case("open GOPs", name, (*X264, "-g", "16", "-bf", "3", "-x264-params", "open-gop=1:scenecut=0"))
        yield Case("open GOPs", f"hevc-{name}", (*X265, "log-level=none:open-gop=1:keyint=24:bframes=4"))
    for b in (0, 3):
        for gop in (12, 24):
            options = (*X264, "-x264-params", f"intra-refresh=1:keyint={gop}:bframes={b}")
            yield Case("gradual refresh", f"{gop}-b{b}.mp4", options)
    for name, fields in (("top.mp4", "tff=1"), ("bottom.mkv", "bff=1"), ("fake.mp4", "fake-interlaced=1")):
        yield Case("interlaced", name, (*X264, "-x264-params", fields))
    yield Case("interlaced", "mpeg2.mkv", ("-c:v", "mpeg2video", "-flags", "+ildct+ilme", "-q:v", "3"))


def timestamps() -> Iterator[Case]:
    for suffix in ("mp4", "mkv"):
        for b in ("0", "3"):
            exact = ("-fps_mode", "passthrough", "-enc_time_base", "1:9600", *X264, "-bf", b)
            varying = ("-vf", f"settb=1/9600,{UNEVEN.format(pace=1.4, fps=FPS)}", *exact)
            yield Case("variable rate", f"uneven-b{b}.{suffix}", varying)
            repeated = ("-vf", UNEVEN.format(pace=0.5, fps=FPS), *exact)
            yield Case("repeated timestamps", f"b{b}.{suffix}", repeated)
        dropped = ("-vf", "select='not(between(n,20,40))'", "-fps_mode", "passthrough", *X264)
        yield Case("variable rate", f"gap.{suffix}", dropped)
        yield Case("variable rate", f"ntsc.{suffix}", X264, before=("-r", "30000/1001"))
        yield Case("late and early starts", f"late.{suffix}", X264, before=("-itsoffset", "5"))
    early = (*X264, "-avoid_negative_ts", "disabled")
    yield Case("late and early starts", "early.mkv", early, before=("-itsoffset", "-2"))


def containers() -> Iterator[Case]:
    for suffix in ("mp4", "mov"):
        for at in ("1.3", "2.05"):
            yield Case("edit lists", f"from-{at}.{suffix}", (*X264, "-bf", "3", "-g", "24"), remux=("-ss", at))
    yield Case("edit lists", "none.mp4", (*X264, "-bf", "3", "-use_editlist", "0"))
    turns = {
        "90": (0, 1, -1, 0), "180": (-1, 0, 0, -1), "270": (0, -1, 1, 0), "mirrored": (-1, 0, 0, 1),
        "upside-down": (1, 0, 0, -1), "transposed": (0, 1, 1, 0), "transverse": (0, -1, -1, 0),
    }  # fmt: skip
    for name, turn in turns.items():
        yield Case("display matrices", f"{name}.mp4", X264, patch=matrix(*turn))
    fragments = {
        "keyframes": "frag_keyframe+empty_moov", "index": "dash+frag_keyframe+global_sidx", "hybrid": "frag_keyframe",
        "frames": "frag_every_frame+empty_moov",
    }  # fmt: skip
    for name, flags in fragments.items():
        yield Case("fragments", f"{name}.mp4", (*X264, "-bf", "3", "-g", "24", "-movflags", flags))


def make(case: Case, folder: Path, source: Path) -> Path | None:
    """The file; None where this FFmpeg cannot make it."""
    path = folder / case.name
    raw = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{WIDTH}x{HEIGHT}")
    rate = () if "-r" in case.before else ("-r", str(FPS))
    pixels = () if "-pix_fmt" in case.options else ("-pix_fmt", PIXELS.get(_codec(case), "yuv420p"))
    # Every stream once from one thread: the same file wherever it is made.
    made = _ffmpeg(*raw, *rate, *case.before, "-i", str(source), *pixels, *case.options, "-threads", "1", str(path))
    if made and case.remux:
        whole = path.rename(path.with_name(f"whole-{path.name}"))
        made = _ffmpeg(*case.remux, "-i", str(whole), "-c", "copy", str(path))
    if not made:
        return None
    path.write_bytes(case.patch(path.read_bytes()))
    return path


PIXELS = {
    "mjpeg": "yuvj420p", "prores": "yuv422p10le", "huffyuv": "yuv422p", "png": "rgb24", "rawvideo": "rgb24",
}  # fmt: skip


def _codec(case: Case) -> str:
    return case.options[case.options.index("-c:v") + 1]


def _ffmpeg(*arguments: str) -> bool:
    command = ["ffmpeg", "-nostdin", "-v", "error", "-y", *arguments]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def shown_by_ffmpeg(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Every frame as FFmpeg shows it, uint8 RGB [n, height, width, 3], and when (s)."""
    command = ["ffmpeg", "-nostdin", "-v", "info", "-i", str(path), "-map", "0:V:0", "-fps_mode", "passthrough"]
    command += ["-vf", "showinfo", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    told = re.findall(r"Parsed_showinfo.* pts_time:(\S+) .* s:(\d+)x(\d+)", done.stderr.decode())
    width, height = int(told[0][1]), int(told[0][2])
    frames = np.frombuffer(done.stdout, np.uint8).reshape(-1, height, width, 3)
    return frames, np.array([float(time) for time, _, _ in told])[: len(frames)]


def compare(path: Path, decoder: Decoder) -> Outcome:
    frames, times = shown_by_ffmpeg(path)
    try:
        clip = decoder.read(path, SETTINGS)
    except VideoError as error:
        return Outcome(0, 0, 0.0, str(error))
    since_first = times - times[0]
    expected = np.searchsorted(since_first, np.array(clip.times) + 1e-6, side="right") - 1
    fitted = np.stack([fit(frame, SETTINGS.size) for frame in frames]).astype(np.int16)
    distances = np.abs(clip.frames[:, None].astype(np.int16) - fitted[None]).mean(axis=(2, 3, 4))
    wrong = int((distances[np.arange(len(expected)), expected] > distances.min(axis=1)).sum())
    longest = float(np.diff(since_first).max())
    # How long the last frame is shown is not in FFmpeg's output: between nothing and the longest of the others.
    off = abs(clip.duration_s - since_first[-1] - longest / 2) / longest
    return Outcome(len(expected), wrong, max(0.0, off - 0.5))


def run(only: str | None = None) -> Iterator[tuple[Case, Outcome | None]]:
    """Every case of a kind, or of all, with its outcome; None where the file cannot be made here."""
    with tempfile.TemporaryDirectory() as name, Decoder(LIMITS) as decoder:
        source = Path(name) / "source.rgb"
        blocks = np.random.default_rng(0).integers(0, 256, (COUNT, 4, 6, 3), dtype=np.uint8)
        source.write_bytes(blocks.repeat(HEIGHT // 4, 1).repeat(WIDTH // 6, 2).tobytes())
        for number, case in enumerate(cases()):
            if only in (None, case.kind):
                folder = Path(name) / str(number)
                folder.mkdir()
                path = make(case, folder, source)
                yield case, None if path is None else compare(path, decoder)


def table(outcomes: list[tuple[Case, Outcome]]) -> str:
    """Markdown, a row a kind."""
    rows = ["| kind | files | frames | not FFmpeg's | duration off by, in frames |", "| --- | --- | --- | --- | --- |"]
    for kind in dict.fromkeys(case.kind for case, _ in outcomes):
        own = [outcome for case, outcome in outcomes if case.kind == kind]
        wrong = sum(outcome.num_wrong for outcome in own)
        off = max(outcome.duration_off for outcome in own)
        rows.append(f"| {kind} | {len(own)} | {sum(o.num_frames for o in own)} | {wrong} | {off:.2f} |")
    wrong, frames = (sum(getattr(o, name) for _, o in outcomes) for name in ("num_wrong", "num_frames"))
    rows.append(f"| **all** | {len(outcomes)} | {frames} | {wrong} | {max(o.duration_off for _, o in outcomes):.2f} |")
    return "\n".join(rows) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", action="store_true", help="put the table into docs/frames.md")
    arguments = parser.parse_args()
    outcomes = []
    for case, outcome in run():
        if outcome is None:
            print(f"left out, this FFmpeg cannot make it: {case.kind}, {case.name}")
            continue
        outcomes.append((case, outcome))
        if not outcome.is_right:
            print(f"{case.kind}, {case.name}: {outcome}")
    print(table(outcomes))
    if arguments.write:
        before, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)
        DOCUMENT.write_text(before + BEGIN + table(outcomes) + END + rest.partition(END)[2], encoding="utf-8")


if __name__ == "__main__":
    main()
