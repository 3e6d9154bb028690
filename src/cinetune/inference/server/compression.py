"""Bodies that a server compresses although nobody asked for that: unpacked within bounds."""

from __future__ import annotations

import zlib

MAX_CODINGS = 3
# Windows of zlib: a gzip file's, one with zlib's own head, one without any.
GZIP, HEADED, BARE = 31, 15, -15
GZIP_NAMES, DEFLATE_NAMES = ("gzip", "x-gzip"), ("deflate",)


class UnreadableBody(ValueError):
    """Why a body cannot be unpacked, in a few words."""


def unpack(content: bytes, codings: str, max_bytes: int) -> bytes:
    """A body without the codings that Content-Encoding tells, in the order in which they were put on.

    Raises UnreadableBody for another coding than gzip and deflate, for a damaged body and for a larger one.
    """
    names = [name for part in codings.lower().split(",") if (name := part.strip()) not in ("", "identity")]
    if len(names) > MAX_CODINGS:
        raise UnreadableBody("too many codings")
    for name in reversed(names):
        if name in GZIP_NAMES:
            content = _inflated(content, GZIP, max_bytes)
        elif name in DEFLATE_NAMES:
            # Servers send both of what they call so: 8 in the low half of the first byte is zlib's head.
            is_headed = content[:1] != b"" and content[0] & 15 == 8 and int.from_bytes(content[:2], "big") % 31 == 0
            content = _inflated(content, HEADED if is_headed else BARE, max_bytes)
        else:
            raise UnreadableBody("unknown coding")
    return content


def _inflated(content: bytes, window: int, max_bytes: int) -> bytes:
    unpacked = b""
    # A gzip file may be several, one behind the other.
    while content:
        inflater = zlib.decompressobj(window)
        try:
            unpacked += inflater.decompress(content, max_bytes + 1 - len(unpacked))
        except zlib.error:
            raise UnreadableBody("damaged coding") from None
        if len(unpacked) > max_bytes:
            raise UnreadableBody("too large a response")
        if not inflater.eof:
            raise UnreadableBody("damaged coding")
        content = inflater.unused_data if window == GZIP else b""
    return unpacked
