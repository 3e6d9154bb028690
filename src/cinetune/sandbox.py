"""Bounded child processes: how one is started and killed, messages on its pipes, limits, an end with its parent."""

from __future__ import annotations

import json
import os
import resource
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import psutil

MAX_HEADER_BYTES = 1 << 23
START_TIMEOUT_S = 60.0
# Of the processor, which an idle child's own watch over its parent may take.
IDLE_SHARE = 0.002
# A child handles untrusted files and servers, so it sees no secrets of its parent's environment.
KEPT_VARIABLES = ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR")
# Threads and their memory arenas would use up a limit on address space.
SINGLE_THREADED = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}


class Child:
    """A process that runs a module of this package; its `main` calls `enter` with the arguments it gets.

    It sees KEPT_VARIABLES and `environment`, nothing else.
    """

    def __init__(self, module: str, settings: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        package_root = str(Path(__file__).resolve().parents[1])
        path = os.pathsep.join(filter(None, [package_root, os.environ.get("PYTHONPATH")]))
        kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, json.dumps(settings), str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**kept, **environment, "PYTHONPATH": path},
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._requests, self.replies = self._process.stdin, self._process.stdout

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    @property
    def returncode(self) -> int:
        """Of a child that was closed, as subprocess gives it."""
        return self._process.returncode

    def is_ready(self) -> bool:
        """Wait for the child's first message; one that does nothing for too long is killed."""
        with self.killed_when_idle(START_TIMEOUT_S):
            return read_message(self.replies) is not None

    def send(self, header: Mapping[str, Any], body: bytes = b"") -> None:
        # A child that refuses a request before it has read it all still has an answer waiting.
        with suppress(BrokenPipeError):
            write_message(self._requests, header, body)

    @contextmanager
    def killed_after(self, timeout_s: float) -> Iterator[threading.Event]:
        """Kill the child if the block takes longer; the event is then set."""
        late = threading.Event()

        def stop() -> None:
            late.set()
            self.kill()

        timer = threading.Timer(timeout_s, stop)
        timer.start()
        try:
            yield late
        finally:
            timer.cancel()
            timer.join()

    @contextmanager
    def killed_when_idle(self, idle_s: float) -> Iterator[threading.Event]:
        """Kill the child if it takes next to no processor time for so long; the event is then set.

        A child that is merely slow, on a busy machine or after a pause of this process too, lives on.
        """
        is_idle, is_over = threading.Event(), threading.Event()
        tick_s = min(1.0, idle_s / 10)

        def watch() -> None:
            spent, idle_ticks = self._processor_s(), 0
            # Counted, for a clock also goes on while this process is stopped.
            while not is_over.wait(tick_s):
                now = self._processor_s()
                if now - spent >= IDLE_SHARE * idle_s:
                    spent, idle_ticks = now, 0
                    continue
                idle_ticks += 1
                if idle_ticks * tick_s >= idle_s:
                    is_idle.set()
                    self.kill()
                    return

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield is_idle
        finally:
            is_over.set()
            watcher.join()

    def _processor_s(self) -> float:
        """What the child has used so far, 0 once it is gone."""
        try:
            used = psutil.Process(self._process.pid).cpu_times()
        except psutil.Error:
            return 0.0
        return used.user + used.system

    def kill(self) -> None:
        """Safe from any thread; whoever waits for a message gets None."""
        self._process.kill()

    def wait(self, timeout_s: float | None = None) -> None:
        """Until the child has ended, or the time is over."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)

    def close(self) -> None:
        """Kill the child if it still runs and close its pipes."""
        self._process.kill()
        self._process.wait()
        self.replies.close()
        # Closing flushes, and nobody reads any more.
        with suppress(BrokenPipeError):
            self._requests.close()


def write_message(pipe: IO[bytes], header: Mapping[str, Any], body: bytes = b"") -> None:
    content = json.dumps(header).encode()
    pipe.write(struct.pack("<I", len(content)) + content)
    pipe.write(body)
    pipe.flush()


def read_message(pipe: IO[bytes]) -> dict[str, Any] | None:
    """The header of the next message; None when the other side is gone."""
    length = pipe.read(4)
    if len(length) < 4:
        return None
    (num_bytes,) = struct.unpack("<I", length)
    content = pipe.read(num_bytes) if num_bytes <= MAX_HEADER_BYTES else b""
    return json.loads(content) if content and len(content) == num_bytes else None


def enter(argv: list[str]) -> tuple[dict[str, Any], IO[bytes], IO[bytes]]:
    """What a child does first; its settings, the pipe of its requests and that of its replies."""
    # An interrupt reaches the whole process group; it is the parent that decides what to do about it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Whatever a library prints must not end up among the replies.
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    _exit_with(int(argv[1]))
    return json.loads(argv[0]), sys.stdin.buffer, replies


def limit(max_file_bytes: int, max_memory_bytes: int | None = None) -> None:
    """Bound this process for good: the size of files it writes, its address space; no core dump."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, max_file_bytes))
    if max_memory_bytes is not None:
        resource.setrlimit(resource.RLIMIT_AS, (max_memory_bytes, max_memory_bytes))


def limit_processor_time(seconds: float) -> None:
    """A bound from now on that holds even when the parent that watches the clock is gone."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime + seconds) + 2
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def _exit_with(parent: int) -> None:
    """End this process when its parent has gone, also in the middle of its work."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
