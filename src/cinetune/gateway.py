"""What only the outside of MLflow's server can do: bounds, readiness, request ids, counts, errors in one sentence.

An ASGI app around the one of MLflow. A request that is too large or one too many is refused before its body is
read; one whose client hangs up, or whose time is over, gives up its claim on the model.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from cinetune.service import Service
from cinetune.telemetry import Telemetry
from cinetune.tickets import CURRENT, Ticket

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

logger = logging.getLogger(__name__)

REQUEST_ID = re.compile(rb"[A-Za-z0-9_.-]{1,64}")
MOST_SENTENCE_CHARS = 300
UNREADABLE = "the request cannot be read: its rows do not have the columns and types of the model's signature."
# What MLflow says in other words, or with the data around it.
IN_OUR_WORDS = (
    (re.compile(r"valid JSON-formatted"), UNREADABLE),
    (re.compile(r"valid JSON"), "the request's body is not JSON."),
    (
        re.compile(r"exactly one of the input fields"),
        "the request must be a JSON object with one of dataframe_records, dataframe_split, inputs and instances.",
    ),
    (re.compile(r"Invalid parameters found: \{\('(\w+)'"), "parameter {0!r} has a value of another type than it must."),
    (re.compile(r"missing inputs \[([^\]]*)\]"), "the rows lack the columns {0}."),
    (re.compile(r"Expected data to be list"), "choices must be a list of texts, or null."),
)
# A client that is still sending reads no answer: what it sends is thrown away for as long.
DRAIN_S = 5.0
REQUEST_TIMEOUT, CLIENT_GONE = 408, 499


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes
    content_type: bytes = b"application/json"
    headers: tuple[tuple[bytes, bytes], ...] = field(default=())


class Refusal(Exception):
    """A status and one sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Gateway:
    """`load` makes the app and its service, in a thread, while /ping says that it is not ready.

    `failure` is what loading ended with, after which `on_failure` is called.
    """

    def __init__(self, load: Callable[[], tuple[App, Service]]) -> None:
        self._load = load
        self._inner: App | None = None
        self._service: Service | None = None
        self._inside: set[Ticket] = set()
        self._is_stopping = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._telemetry = Telemetry()
        self.failure: BaseException | None = None
        self.on_failure: Callable[[], None] = lambda: None

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self._handle(scope, receive, send)

    def stop(self, grace_s: float) -> None:
        """Take no more requests, and give up after a while those that are being answered. From any thread."""
        self._is_stopping = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.call_later, grace_s, self._give_up)

    def _give_up(self) -> None:
        for ticket in self._inside:
            ticket.cancel()

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        self._loop = asyncio.get_running_loop()
        loading = asyncio.create_task(asyncio.to_thread(self._load))
        loading.add_done_callback(self._loaded)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        service, self._service = self._service, None
        if service is not None:
            await asyncio.to_thread(service.close)
        await send({"type": "lifespan.shutdown.complete"})

    def _loaded(self, loading: asyncio.Task[tuple[App, Service]]) -> None:
        self.failure = None if loading.cancelled() else loading.exception()
        if loading.cancelled() or self.failure is not None:
            self.on_failure()
            return
        self._inner, self._service = loading.result()
        # A thread for each request that is let in: those that wait together are answered together.
        threads = ThreadPoolExecutor(self._service.limits.most_waiting, thread_name_prefix="request")
        asyncio.get_running_loop().set_default_executor(threads)

    async def _handle(self, scope: Message, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path == "/metrics":
            counts = self._service.counts() if self._service else {}
            gauges = {"requests_inside": len(self._inside), "ready": int(self._service is not None)}
            text = self._telemetry.page(gauges, counts)
            await _send(send, Answer(200, text.encode(), b"text/plain; version=0.0.4"), None)
        elif self._is_stopping or self._service is None or self._inner is None:
            state = "the server is stopping" if self._is_stopping else "the model is not ready: ask /ping until it is"
            await _send(send, _error(503, f"{state}.", None), None)
        elif path == "/invocations" and scope["method"] == "POST":
            await self._invoke(scope, receive, send)
        else:
            await self._inner(scope, receive, send)

    async def _invoke(self, scope: Message, receive: Receive, send: Send) -> None:
        started = time.monotonic()
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"")
        request_id = given.decode() if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        ticket = Ticket(self._service.limits.timeout_s)
        try:
            answer = await self._answer(scope, headers, receive, ticket, request_id)
        except Refusal as refusal:
            answer = _error(refusal.status, str(refusal), request_id)
            if refusal.status != REQUEST_TIMEOUT:
                await _drain(receive)
        finally:
            ticket.cancel()
        seconds = time.monotonic() - started
        self._telemetry.count(answer.status, seconds)
        logger.info("request %s: status %d in %.0f ms", request_id, answer.status, 1000 * seconds)
        if answer.status != CLIENT_GONE:
            await _send(send, answer, request_id)

    async def _answer(
        self, scope: Message, headers: dict[bytes, bytes], receive: Receive, ticket: Ticket, request_id: str
    ) -> Answer:
        limits = self._service.limits
        if len(self._inside) >= limits.most_waiting:
            raise Refusal(503, f"{len(self._inside)} requests are waiting already: send this again in a moment.")
        if b"content-type" not in headers:
            raise Refusal(415, "the request has no Content-Type: send application/json.")
        self._inside.add(ticket)
        try:
            try:
                async with asyncio.timeout(limits.timeout_s):
                    body = await _read_body(headers, receive, limits.most_body_mb)
            except TimeoutError:
                raise Refusal(
                    REQUEST_TIMEOUT, f"the request did not arrive within {limits.timeout_s:g} s: send it anew."
                ) from None
            if body is None:
                return Answer(CLIENT_GONE, b"")
            return await self._forward(scope, body, receive, ticket, request_id)
        finally:
            self._inside.discard(ticket)

    async def _forward(self, scope: Message, body: bytes, receive: Receive, ticket: Ticket, request_id: str) -> Answer:
        """MLflow's answer, its errors put into one sentence."""
        gone = asyncio.Event()
        given = [{"type": "http.request", "body": body, "more_body": False}]
        sent: list[Message] = []

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            ticket.cancel()
            gone.set()

        async def inner_receive() -> Message:
            if given:
                return given.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def inner_send(message: Message) -> None:
            sent.append(message)

        CURRENT.set(ticket)
        watching = asyncio.create_task(watch())
        answering = asyncio.create_task(self._inner(scope, inner_receive, inner_send))
        try:
            await asyncio.wait({answering})
        finally:
            ticket.cancel()
            watching.cancel()
            answering.cancel()
        if gone.is_set():
            return Answer(CLIENT_GONE, b"")
        error = answering.exception()
        if error is not None or not sent:
            logger.error("request %s failed", request_id, exc_info=error)
            return _error(500, "the server failed on this request: see its log.", request_id)
        status = sent[0]["status"]
        content = b"".join(message.get("body", b"") for message in sent[1:])
        if status >= 400:
            return _error(status, sentence_of(content), request_id)
        return Answer(status, content, dict(sent[0]["headers"]).get(b"content-type", b"application/json"))


async def _read_body(headers: dict[bytes, bytes], receive: Receive, most_mb: int) -> bytes | None:
    """None when the client has gone. Refuses a body above the limit, by what it promises or by what comes."""
    too_large = Refusal(413, f"the request is above the limit of {most_mb} MB: send fewer or smaller videos.")
    promised = headers.get(b"content-length", b"0")
    if not promised.isdigit() or int(promised) > most_mb << 20:
        raise too_large
    chunks: list[bytes] = []
    num_bytes = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        chunks.append(message.get("body", b""))
        num_bytes += len(chunks[-1])
        if num_bytes > most_mb << 20:
            raise too_large
        if not message.get("more_body"):
            return b"".join(chunks)


async def _drain(receive: Receive) -> None:
    try:
        async with asyncio.timeout(DRAIN_S):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect" or not message.get("more_body"):
                    return
    except TimeoutError:
        return


def sentence_of(content: bytes) -> str:
    """One sentence of an error that MLflow would send: nothing of the request's data, no trace."""
    text = content.decode("utf-8", "replace")
    try:
        found = json.loads(text)
    except ValueError:
        found = {"message": text}
    if not isinstance(found, dict) or "stack_trace" in found:
        return UNREADABLE
    text = str(found.get("message", text))
    for pattern, sentence in IN_OUR_WORDS:
        if match := pattern.search(text):
            return sentence.format(*match.groups())
    # MLflow puts the data before the reason, or after it.
    reason = text.rpartition("Error: ")[2].partition("\nInput:")[0]
    words = " ".join(reason.split()).strip("'\" ")
    if len(words) > MOST_SENTENCE_CHARS:
        words = words[:MOST_SENTENCE_CHARS] + ".."
    return words if words.endswith(".") else f"{words}."


def _error(status: int, sentence: str, request_id: str | None) -> Answer:
    content = {"error": sentence} | ({"request_id": request_id} if request_id else {})
    headers = ((b"retry-after", b"1"),) if status == 503 else ()
    return Answer(status, json.dumps(content, ensure_ascii=False).encode(), headers=headers)


async def _send(send: Send, answer: Answer, request_id: str | None) -> None:
    headers = [
        (b"content-type", answer.content_type),
        (b"content-length", str(len(answer.body)).encode()),
        *answer.headers,
    ]
    if request_id:
        headers.append((b"x-request-id", request_id.encode()))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})
