"""Errors that a user or a client can correct, reported in one sentence without a stack trace."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)
# How safetensors and PyTorch, whose errors carry no number, speak of a full disk.
SPOKEN_OF = (*map(os.strerror, FULL), "PytorchStreamWriter failed writing")


class InputError(ValueError):
    """What was given cannot be used: one sentence that names the value and the remedy."""


MAX_REASON_CHARS = 200


def reason_of(error: BaseException) -> str:
    """What another library's error says, as part of a sentence: one line without a full stop, shortened if long."""
    line = " ".join(str(error).split())
    return line.rstrip(".") if len(line) <= MAX_REASON_CHARS else f"{line[: MAX_REASON_CHARS - 1]}…"


def of_machine(error: BaseException) -> InputError | None:
    """What the machine refuses, room or a permission, as one sentence; None for any other error."""
    number, path = getattr(error, "errno", None), getattr(error, "filename", None)
    place = f" at {str(path)!r}" if path else ""
    if number in FULL or any(words in str(error) for words in SPOKEN_OF):
        return InputError(
            f"there is no room left on the disk{place}: free some and run it again; docs/disk.md says what may be "
            "deleted."
        )
    if number in REFUSED and path:
        return InputError(
            f"{str(path)!r} is refused to this user ({os.strerror(number)}): change its owner or mode, or run as the "
            "user who owns it."
        )
    return None


@contextmanager
def one_sentence() -> Iterator[None]:
    """Turns what the machine refuses within the block (space, permission) into InputError."""
    try:
        yield
    except _of_writing() as error:
        sentence = of_machine(error)
        if sentence is None:
            raise
        raise sentence from None


def _of_writing() -> tuple[type[Exception], ...]:
    from safetensors import SafetensorError

    return OSError, RuntimeError, SafetensorError
