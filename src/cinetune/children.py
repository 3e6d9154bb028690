"""A child process and its parent: how one is started and ended, messages on a pipe, and an end together."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

MOST_HEADER_BYTES = 1 << 23
START_TIMEOUT_S = 60.0


def start(module: str, settings: Mapping[str, Any], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """A child that runs a module of this package, given its settings as JSON and its parent's process id."""
    package_root = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join(filter(None, [package_root, os.environ.get("PYTHONPATH")]))
    return subprocess.Popen(
        [sys.executable, "-P", "-m", module, json.dumps(settings), str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**environment, "PYTHONPATH": path},
    )


def is_ready(process: subprocess.Popen[bytes]) -> bool:
    """Wait for the child's first message; one that takes too long to start is killed."""
    timer = threading.Timer(START_TIMEOUT_S, process.kill)
    timer.start()
    try:
        return read_message(process.stdout) is not None
    finally:
        timer.cancel()


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill the child and close its pipes."""
    process.kill()
    process.wait()
    process.stdout.close()
    # Closing flushes, and nobody reads any more.
    with suppress(BrokenPipeError):
        process.stdin.close()


def write_message(pipe: BinaryIO, header: dict[str, Any], body: bytes = b"") -> None:
    content = json.dumps(header).encode()
    pipe.write(struct.pack("<I", len(content)) + content)
    pipe.write(body)
    pipe.flush()


def read_message(pipe: BinaryIO) -> dict[str, Any] | None:
    """The header of the next message; None when the other side is gone."""
    length = pipe.read(4)
    if len(length) < 4:
        return None
    (num_bytes,) = struct.unpack("<I", length)
    content = pipe.read(num_bytes) if num_bytes <= MOST_HEADER_BYTES else b""
    return json.loads(content) if content and len(content) == num_bytes else None


def leave_with(parent: int) -> None:
    """End this process when its parent has gone, also in the middle of its work."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
