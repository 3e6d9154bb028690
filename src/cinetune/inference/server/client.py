"""One request to a server, which may stall, break off, be busy or answer with anything.

A request has one time limit for all of it and a response of bounded size; no redirect is followed, for it could lead
the key elsewhere. What the server sends is read with the key taken out of it, should it be told back.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2

from cinetune.errors import InputError, reason_of
from cinetune.inference.server import compression, reply
from cinetune.inference.server.compression import UnreadableBody
from cinetune.inference.server.endpoint import FORM, KEY, Endpoint
from cinetune.inference.server.reply import NoCompletion, ServerReply

MAX_BODY_BYTES = 8 << 20
MAX_WAIT_S = 600.0
HIDDEN = b"[key]"
# What another attempt may do better, and what is wrong with this very question.
PASSING, REJECTING = (408, 409, 425, 429), (400, 413, 422)


class Failure(Exception):
    """Why a request has no reply; another one may get it. `wait_s`: how long the server asks to be left alone."""

    def __init__(self, reason: str, wait_s: float | None = None, is_busy: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.wait_s, self.is_busy = reason, wait_s, is_busy


class Rejection(Exception):
    """What the server says of a question that it does not take."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Client:
    """Use as an asynchronous context manager."""

    def __init__(self, endpoint: Endpoint, key: str, timeout_s: float, at_once: int) -> None:
        self._endpoint, self._key, self._timeout_s = endpoint, key.encode("ascii"), timeout_s
        # Some compress all the same.
        headers = {"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {key}"} if key else {})
        limits = httpx2.Limits(max_connections=at_once, max_keepalive_connections=at_once)
        self._http = httpx2.AsyncClient(headers=headers, timeout=None, limits=limits, follow_redirects=False)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def ask(self, body: Mapping[str, Any]) -> ServerReply:
        """Raises Failure, Rejection, and InputError for what no other question would change."""
        try:
            async with asyncio.timeout(self._timeout_s):
                status, headers, content = await self._post(body)
        except TimeoutError:
            raise Failure("timeout") from None
        except httpx2.UnsupportedProtocol as error:
            raise InputError(f"{self._endpoint.url!r} cannot be asked ({reason_of(error)}): {FORM}.") from None
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError, OSError) as error:
            raise Failure("connection" if isinstance(error, httpx2.TransportError) else type(error).__name__) from None
        content = self._plain(status, headers, content)
        if status == 200:
            try:
                return reply.read(content)
            except NoCompletion as error:
                raise Failure(str(error)) from None
        if status in PASSING or status >= 500:
            raise Failure(f"status {status}", retry_after(headers.get("retry-after", "")), status in (429, 503))
        if status in REJECTING:
            raise Rejection(status, _sentence(content))
        raise InputError(self._told(status, _sentence(content)))

    def _plain(self, status: int, headers: Mapping[str, str], content: bytes) -> bytes:
        """A body unpacked and without the key; of an error that cannot be unpacked nothing is told."""
        try:
            content = compression.unpack(content, headers.get("content-encoding", ""), MAX_BODY_BYTES)
        except UnreadableBody as error:
            if status == 200:
                raise Failure(str(error)) from None
            return b""
        return content.replace(self._key, HIDDEN) if self._key else content

    async def _post(self, body: Mapping[str, Any]) -> tuple[int, Mapping[str, str], bytes]:
        content = bytearray()
        async with self._http.stream("POST", f"{self._endpoint.url}/chat/completions", json=body) as response:
            async for chunk in response.aiter_raw():
                content += chunk
                if len(content) > MAX_BODY_BYTES:
                    raise Failure("too large a response")
        return response.status_code, response.headers, bytes(content)

    def _told(self, status: int, sentence: str) -> str:
        remedy = "see that it is the base address of its OpenAI protocol and the model's name"
        if status in (401, 403):
            remedy = f"set {KEY} to a key that it takes"
        elif 300 <= status < 400:
            remedy = "name the address that it leads to"
        return f"the server at {self._endpoint.url} answers {status} ({sentence}): {remedy}."


def _sentence(content: bytes) -> str:
    """What the server says of an error, shortened; of a page nothing."""
    try:
        error = json.loads(content)["error"]
        told = error["message"] if isinstance(error, dict) else error
    except (ValueError, RecursionError, KeyError, TypeError):
        return "without a reason"
    return reason_of(ValueError(told)) if isinstance(told, str) and told.strip() else "without a reason"


def retry_after(text: str) -> float | None:
    """Seconds until when the server asks to be left alone: a number or a date; at most MAX_WAIT_S."""
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return None
    return min(max(seconds, 0.0), MAX_WAIT_S) if not math.isnan(seconds) else None
