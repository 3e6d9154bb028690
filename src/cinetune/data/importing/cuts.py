"""Cut a part out of a video without decoding it: packets from the keyframe before on, and an edit list.

`python -m cinetune.data.importing.cuts` is the child that reads the untrusted file. The first frame of a part is exact;
its end may come some frames late, where frames before it need one behind it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cinetune import sandbox
from cinetune.errors import InputError
from cinetune.sandbox import SINGLE_THREADED, Child, read_message, write_message

MEMORY_BYTES = 2 << 30
MAX_BYTES = 4 << 30


class Cutter:
    """A child process that cuts one part after another; a context manager."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._child: Child | None = None

    def __enter__(self) -> Cutter:
        return self

    def __exit__(self, *_: object) -> None:
        self._discard()

    def measure(self, path: Path) -> float:
        """How long a video is, in s, as its container says. Raises InputError for a file that is none."""
        return float(self._ask({"path": str(path)})["duration_s"])

    def cut(self, path: Path, start_s: float, end_s: float, target: Path) -> None:
        """Write the part as MP4. Raises InputError where it cannot be cut."""
        self._ask({"path": str(path), "start_s": start_s, "end_s": end_s, "target": str(target)})

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        if self._child is None:
            self._child = Child("cinetune.data.importing.cuts", {"timeout_s": self._timeout_s}, SINGLE_THREADED)
        with self._child.killed_after(self._timeout_s):
            self._child.send(request)
            reply = read_message(self._child.replies)
        if reply is None:
            self._discard()
            raise InputError(f"could not be cut within {self._timeout_s:g} s and the limits on memory")
        if "reason" in reply:
            raise InputError(str(reply["reason"]))
        return reply

    def _discard(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.close()


# ---- the child process


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    import av
    from av.error import FFmpegError

    from cinetune.frames.video.playhead import OPEN_OPTIONS

    try:
        with (
            os.fdopen(os.open(request["path"], os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file,
            av.open(file, options=OPEN_OPTIONS, metadata_errors="replace") as source,
        ):
            if not source.streams.video:
                return {"reason": "holds no picture"}
            if "target" not in request:
                duration = source.duration or 0
                return (
                    {"duration_s": duration / av.time_base} if duration > 0 else {"reason": "does not say its length"}
                )
            _cut(source, request)
    except FFmpegError as error:
        return {"reason": f"cannot be cut ({error.strerror}): convert it to H.264 in MP4"}
    except OSError as error:
        return {"reason": f"cannot be cut ({error.strerror})"}
    return {}


def _cut(source: Any, request: dict[str, Any]) -> None:
    import av

    stream = source.streams.video[0]
    origin = stream.start_time or 0
    first = origin + round(request["start_s"] / stream.time_base)
    last = origin + round(request["end_s"] / stream.time_base)
    options = {"fflags": "+bitexact", "avoid_negative_ts": "disabled"}
    with av.open(request["target"], "w", format="mp4", options=options) as target:
        written = target.add_stream_from_template(stream)
        for packet in _packets(source, stream, first, last):
            # What is before the start keeps its place there: the edit list hides it.
            packet.pts -= first
            packet.dts -= first
            packet.stream = written
            target.mux(packet)


def _packets(source: Any, stream: Any, first: int, last: int) -> Iterator[Any]:
    """In the order of decoding; behind the last frame of the part nothing but what that needs."""
    source.seek(first, stream=stream, backward=True)
    waiting = []
    for packet in source.demux(stream):
        if packet.pts is None or packet.dts is None:
            continue
        if packet.dts >= last:
            return
        waiting.append(packet)
        if packet.pts < last:
            yield from waiting
            waiting = []


def main(argv: list[str]) -> None:
    _, requests, replies = sandbox.enter(argv)
    import av  # noqa: F401  (loaded before memory is limited)

    sandbox.limit(max_file_bytes=MAX_BYTES, max_memory_bytes=MEMORY_BYTES)
    while (request := read_message(requests)) is not None:
        write_message(replies, _answer(request))


if __name__ == "__main__":
    main(sys.argv[1:])
