"""What a child process and its parent have in common: messages on a pipe, and an end together."""

from __future__ import annotations

import json
import os
import struct
import threading
import time
from typing import Any, BinaryIO

MOST_HEADER_BYTES = 1 << 23


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
