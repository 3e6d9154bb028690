"""Decode untrusted videos in child processes with limits on memory and processor time.

The worst file costs one clip. Processor time decides, so that a pause or other work on the machine costs none; a child
that stands still is ended much later.
"""

from __future__ import annotations

import math
import queue
import signal
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import IO, Self

import numpy as np

from cinetune.errors import InputError
from cinetune.frames.limits import Limits, Refusal, VideoError
from cinetune.frames.sampling import ClipFrames, FrameSettings
from cinetune.sandbox import SINGLE_THREADED, Child, read_message

# In which a child has used next to no processor time: so many times Limits.timeout_s, and not less than some seconds.
IDLE_TIMES, MIN_IDLE_S = 10, 5.0


class DecodingChild(ABC):
    """A child process that decodes one clip after another, replaced when a clip takes it down.

    Use as a context manager. One call at a time; a second thread waits for the first.
    """

    def __init__(self, limits: Limits, module: str) -> None:
        self._limits, self._module = limits, module
        self._idle_s = max(IDLE_TIMES * limits.timeout_s, MIN_IDLE_S)
        self._child: Child | None = None
        self._lock = threading.Lock()
        self._is_closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child, also while another thread waits for it."""
        self._is_closed = True
        child = self._child
        if child is not None:
            child.kill()
        with self._lock:
            self._discard()

    @abstractmethod
    def read(self, source: Path, settings: FrameSettings, name: str | None = None) -> ClipFrames:
        """The clip's frames. Raises VideoError; its text shows `name`, or the path as it was given."""

    def ask(self, send: Callable[[Child], None], settings: FrameSettings) -> ClipFrames:
        """The answer to what `send` writes. Raises Refusal."""
        with self._lock:
            return self._ask(send, settings)

    def _ask(self, send: Callable[[Child], None], settings: FrameSettings) -> ClipFrames:
        child = self._running()
        result: ClipFrames | Refusal | None = None
        with child.killed_when_idle(self._idle_s) as idle:
            try:
                send(child)
                result = _receive_clip(child.replies, settings)
                if result is None:
                    child.wait(timeout_s=1)
            finally:
                # Also after an interrupt: a reply half read would be taken for the next clip's.
                has_left = isinstance(result, Refusal) and result.status == "out_of_memory"
                if result is None or has_left or idle.is_set():
                    self._discard()
        result = result or self._explain_end(child.returncode, idle.is_set())
        if isinstance(result, Refusal):
            raise result
        return result

    def _explain_end(self, returncode: int, is_idle: bool) -> Refusal:
        if is_idle:
            return Refusal("stalled", f"stood still for {self._idle_s:g} s: see that its disk answers and run it again")
        if returncode == -signal.SIGXCPU:
            limit = f"{self._limits.timeout_s:g} s of processor time"
            if self._limits.cpu_s_per_megapixel_s:
                limit += f" and {self._limits.cpu_s_per_megapixel_s:g} s for each second of a megapixel"
            return Refusal("timeout", f"took more than {limit} to decode: shorten it or raise frames.timeout_s")
        if self._is_closed:
            return Refusal("unreadable", "was not read: its decoder was closed")
        if returncode == -signal.SIGKILL:
            return Refusal("killed", "was stopped by the system: free memory or lower frames.workers")
        return Refusal("broken", f"ended the decoding process with status {returncode}: fetch it again")

    def _running(self) -> Child:
        if self._is_closed:
            raise InputError("this decoder is closed: open another one.")
        if self._child is not None and self._child.is_running:
            return self._child
        self._discard()
        self._child = child = Child(self._module, asdict(self._limits), SINGLE_THREADED)
        if not child.is_ready():
            child.wait(timeout_s=1)
            self._discard()
            if child.returncode == -signal.SIGKILL:
                reason = "was not decoded, for no process could be started in time: run it again on a less busy machine"
                raise Refusal("stalled", reason)
            limit = self._limits.memory_mb
            raise InputError(f"the decoding process did not start with frames.memory_mb={limit}: raise it.")
        return child

    def _discard(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.close()


class Decoder(DecodingChild):
    """Of videos."""

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits, "cinetune.frames.worker")

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
        try:
            return self.ask(lambda child: _send_source(child, source, settings, part), settings)
        except Refusal as refusal:
            raise VideoError(refusal.status, f"video {shown} {refusal}.") from None


def _send_source(child: Child, source: Path | bytes, settings: FrameSettings, part: tuple[float, float] | None) -> None:
    header = {"settings": settings.to_dict(), "part": part}
    if isinstance(source, bytes):
        child.send({"path": None, "num_bytes": len(source), **header}, source)
    else:
        child.send({"path": str(source.absolute()), **header})


def _receive_clip(pipe: IO[bytes], settings: FrameSettings) -> ClipFrames | Refusal | None:
    """The child's answer, its shape known in advance; None when the child ended before it was whole."""
    header = read_message(pipe)
    if header is None:
        return None
    if "status" in header:
        return Refusal(str(header["status"]), str(header["reason"]))
    shape = (settings.num_frames, settings.size, settings.size, 3)
    content = pipe.read(math.prod(shape))
    if len(content) < math.prod(shape):
        return None
    return ClipFrames(
        frames=np.frombuffer(content, dtype=np.uint8).reshape(shape),
        times=tuple(header["times"]),
        cuts=tuple(header["cuts"]),
        duration_s=header["duration_s"],
        note=header["note"],
    )


def read_many(
    paths: Iterable[tuple[str, Path | VideoError]],
    settings: FrameSettings,
    open_decoder: Callable[[], DecodingChild],
    workers: int,
) -> Iterator[tuple[str, ClipFrames | VideoError]]:
    """(name, frames or why there are none) of many videos, in the order given, by `workers` children.

    What was refused before it was looked for keeps its place in the order.
    """
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(workers))
        idle: queue.SimpleQueue[DecodingChild] = queue.SimpleQueue()
        for _ in range(workers):
            idle.put(stack.enter_context(open_decoder()))
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
