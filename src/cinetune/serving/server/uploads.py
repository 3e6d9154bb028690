"""Bodies of requests while they arrive: JSON alone, at a least rate, and within a number of bytes for all together."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from email.message import Message as Header

from cinetune.serving.server.responses import Receive, Refusal

# A body of which less arrives in this time is given up: about 13 kB/s.
WINDOW_S, WINDOW_BYTES = 5.0, 1 << 16
# A client that is still sending reads no response: its body is discarded for as long.
DRAIN_S = 5.0
UNSUPPORTED, TOO_SLOW, TOO_LARGE, BUSY = 415, 408, 413, 503
# Of the largest size, that may be held at once.
MAX_BODIES = 8


class Uploads:
    """Holds no more than `MAX_BODIES` bodies of the largest size. For one thread, that of the event loop."""

    def __init__(self, max_body_mb: int, timeout_s: float) -> None:
        self._max_body_mb, self._timeout_s = max_body_mb, timeout_s
        self.num_bytes = 0

    async def read(self, headers: Mapping[bytes, bytes], receive: Receive, body: Body) -> bool:
        """Fill `body`; False when the client has gone. Raises Refusal for what is too large, too slow or too much."""
        check_type(headers)
        declared = headers.get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > self._max_body_mb << 20:
            raise self._too_large()
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._receive(receive, body)
        except TimeoutError:
            raise Refusal(TOO_SLOW, "the request arrived too slowly or not at all: send it again.") from None

    async def _receive(self, receive: Receive, body: Body) -> bool:
        while True:
            wanted = len(body.content) + WINDOW_BYTES
            async with asyncio.timeout(WINDOW_S):
                while len(body.content) < wanted:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return False
                    self._add(body, message.get("body", b""))
                    if not message.get("more_body"):
                        return True

    def _add(self, body: Body, chunk: bytes) -> None:
        if len(body.content) + len(chunk) > self._max_body_mb << 20:
            raise self._too_large()
        if self.num_bytes + len(chunk) > MAX_BODIES * self._max_body_mb << 20:
            raise Refusal(BUSY, "as many bytes of requests are held as there is room for: send this again in a moment.")
        self.num_bytes += len(chunk)
        body.num_bytes += len(chunk)
        body.content += chunk

    def _too_large(self) -> Refusal:
        limit = f"the limit of {self._max_body_mb} MB"
        return Refusal(TOO_LARGE, f"the request is above {limit}: send fewer or smaller videos.")


class Body:
    """A body and the room that it takes, from its first byte to the end of its request."""

    def __init__(self, uploads: Uploads) -> None:
        self._uploads = uploads
        self.content = bytearray()
        self.num_bytes = 0

    def __enter__(self) -> Body:
        return self

    def take(self) -> bytes:
        """What has arrived, which is then held by its taker alone."""
        content = bytes(self.content)
        self.content.clear()
        return content

    def __exit__(self, *_: object) -> None:
        self.content.clear()
        self._uploads.num_bytes -= self.num_bytes
        self.num_bytes = 0


def check_type(headers: Mapping[bytes, bytes]) -> None:
    """Raises Refusal for another type than JSON in UTF-8, and for a compressed body."""
    given = headers.get(b"content-type")
    if given is None:
        raise Refusal(UNSUPPORTED, "the request has no Content-Type: send application/json.")
    header = Header()
    header["content-type"] = given.decode("latin-1")
    if header.get_content_type() != "application/json":
        raise Refusal(UNSUPPORTED, "the request's Content-Type is not supported: send application/json.")
    if str(header.get_param("charset", "utf-8")).lower() not in ("utf-8", "utf8"):
        raise Refusal(UNSUPPORTED, "the request's charset is not supported: send UTF-8.")
    if headers.get(b"content-encoding", b"identity").strip().lower() != b"identity":
        raise Refusal(UNSUPPORTED, "compressed requests are not supported: send it without Content-Encoding.")


async def drain(receive: Receive) -> None:
    try:
        async with asyncio.timeout(DRAIN_S):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect" or not message.get("more_body"):
                    return
    except TimeoutError:
        return
