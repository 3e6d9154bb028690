"""The decoding process: requests in, frames out, within limits on memory and processor time.

It opens the file itself and hands FFmpeg an open file, never a name: what a crafted file says about other files or
addresses leads nowhere.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import sys
from typing import IO, Any, BinaryIO

from av.error import FFmpegError

from cinetune import sandbox
from cinetune.frames.decoding import decode_clip
from cinetune.frames.limits import Limits, Refusal
from cinetune.frames.sampling import FrameSettings
from cinetune.sandbox import read_message, write_message

# Of a disk, a network or a machine that may do better the next time.
PASSING_ERRORS = {
    errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE,
}  # fmt: skip


def serve(limits: Limits, requests: IO[bytes], replies: IO[bytes]) -> None:
    """Answer requests until the parent closes the pipe."""
    write_message(replies, {"ready": True})
    while (request := read_message(requests)) is not None:
        settings = FrameSettings(**request["settings"])
        sandbox.limit_processor_time(limits.timeout_s)
        try:
            with _open_source(request, requests) as file:
                clip = decode_clip(file, settings, limits, request["part"])
        except Refusal as refusal:
            write_message(replies, {"status": refusal.status, "reason": str(refusal)})
        except MemoryError:
            reason = f"needs more than {limits.memory_mb} MB: scale it down or raise frames.memory_mb"
            write_message(replies, {"status": "out_of_memory", "reason": reason})
            return
        except FFmpegError as error:
            write_message(replies, {"status": "broken", "reason": f"cannot be decoded: {error.strerror}"})
        except OSError as error:
            of_disk = _of_disk(error, "cannot be read")
            write_message(replies, {"status": of_disk.status, "reason": str(of_disk)})
        else:
            header = {"times": clip.times, "cuts": clip.cuts, "duration_s": clip.duration_s, "note": clip.note}
            write_message(replies, header, clip.frames.tobytes())


def _open_source(request: dict[str, Any], requests: IO[bytes]) -> BinaryIO:
    """The request's bytes, or its path opened once and judged by what was opened, not by its name."""
    if request["path"] is None:
        return io.BytesIO(requests.read(request["num_bytes"]))
    try:
        # Without O_NONBLOCK opening a FIFO waits for a writer for ever.
        descriptor = os.open(request["path"], os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise Refusal("missing", "does not exist") from None
    except OSError as error:
        raise _of_disk(error, "cannot be opened") from None
    except ValueError:
        raise Refusal("unreadable", "cannot be opened: its name holds a NUL") from None
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_size > 0:
        return os.fdopen(descriptor, "rb", buffering=0)
    os.close(descriptor)
    if stat.S_ISREG(status.st_mode):
        raise Refusal("not_a_video", "is empty")
    raise Refusal("unreadable", "is not a regular file")


def _of_disk(error: OSError, what: str) -> Refusal:
    status = "io_error" if error.errno in PASSING_ERRORS else "unreadable"
    return Refusal(status, f"{what}: {error.strerror}")


def main(argv: list[str]) -> None:
    settings, requests, replies = sandbox.enter(argv)
    limits = Limits(**settings)
    import cv2

    cv2.setNumThreads(1)
    sandbox.limit(max_file_bytes=0, max_memory_bytes=limits.memory_mb << 20)
    serve(limits, requests, replies)


if __name__ == "__main__":
    main(sys.argv[1:])
