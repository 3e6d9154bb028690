"""Decoders and decoded clips shared by the threads of a server."""

from __future__ import annotations

import queue
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Generic, TypeVar

from cinetune.errors import InputError
from cinetune.frames.decoder import DecodingChild
from cinetune.serving.batching import Clip
from cinetune.serving.server.deadline import Deadline

D = TypeVar("D", bound=DecodingChild)


class DecoderPool(Generic[D]):
    """As many decoding processes as may run at once; each starts when it is first needed."""

    def __init__(self, open_decoder: Callable[[], D], count: int) -> None:
        self._all = [open_decoder() for _ in range(count)]
        # The one used last is taken first: a second process starts only when two are needed.
        self._idle: queue.LifoQueue[D] = queue.LifoQueue()
        for decoder in self._all:
            self._idle.put(decoder)

    @contextmanager
    def borrow(self, deadline: Deadline) -> Iterator[D]:
        """Raises TimeoutError when none is free before the deadline."""
        try:
            decoder = self._idle.get(timeout=deadline.seconds_left())
        except queue.Empty:
            raise TimeoutError("no decoder was free in time") from None
        try:
            deadline.check()
            yield decoder
        finally:
            self._idle.put(decoder)

    def close(self) -> None:
        for decoder in self._all:
            decoder.close()


class ClipCache:
    """LRU cache. What several threads request at once is decoded by the first of them alone."""

    def __init__(self, max_clips: int) -> None:
        self._max_clips = max_clips
        self._cached: OrderedDict[str, Future[Clip | str]] = OrderedDict()
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._cached)

    def read(self, digest: str, decode: Callable[[], Clip], deadline: Deadline) -> Clip:
        """Raises InputError for a clip that cannot be decoded."""
        found = self._find(digest, decode, deadline)
        if isinstance(found, str):
            raise InputError(found)
        return found

    def _find(self, digest: str, decode: Callable[[], Clip], deadline: Deadline) -> Clip | str:
        while True:
            with self._lock:
                cached = self._cached.get(digest)
                if cached is None:
                    own = self._cached[digest] = Future()
                    self.counts["clips_decoded"] += 1
                    while len(self._cached) > self._max_clips:
                        self._cached.popitem(last=False)
                else:
                    self._cached.move_to_end(digest)
                    self.counts["clips_found"] += 1
            if cached is None:
                return self._fill(digest, own, decode)
            try:
                return cached.result(timeout=deadline.seconds_left())
            except TimeoutError:
                # The thread that decodes may have timed out; this one has its own deadline.
                deadline.check()

    def _fill(self, digest: str, own: Future[Clip | str], decode: Callable[[], Clip]) -> Clip | str:
        found: Clip | str
        try:
            found = decode()
        except InputError as error:
            # Its reason alone: an error that is kept keeps the video, too.
            found = str(error)
        except BaseException as error:
            self._forget(digest, own)
            own.set_exception(error)
            raise
        if isinstance(found, str):
            self._forget(digest, own)
        own.set_result(found)
        return found

    def _forget(self, digest: str, own: Future[Clip | str]) -> None:
        with self._lock:
            if self._cached.get(digest) is own:
                del self._cached[digest]
