"""ASGI middleware around MLflow's app: limits, readiness, request ids, metrics, errors in one sentence.

A request that is too large or one too many is refused before its body is read; one whose client disconnects, or whose
deadline passes, is cancelled.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from cinetune.params import ServeParams
from cinetune.serving.server.deadline import CURRENT, Deadline
from cinetune.serving.server.telemetry import Telemetry
from cinetune.serving.service import Service

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Coroutine[Any, Any, None]]

logger = logging.getLogger(__name__)

REQUEST_ID = re.compile(rb"[A-Za-z0-9_.-]{1,64}")
MAX_SENTENCE_CHARS = 300
UNREADABLE = "the request cannot be read: its rows do not have the columns and types of the model's signature."
# MLflow's errors that name its own methods, or hold the request's data.
REWORDED = (
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
# A client that is still sending reads no response: its body is discarded for as long.
DRAIN_S = 5.0
REQUEST_TIMEOUT, CLIENT_GONE = 408, 499


@dataclass(frozen=True)
class Response:
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
    """`load` makes the app and its service, in a thread, while /ping answers 503.

    Where it fails, `failure` holds its exception and `on_failure` is called.
    """

    def __init__(self, load: Callable[[], tuple[App, Service]]) -> None:
        self._load = load
        self._loaded: tuple[App, Service] | None = None
        self._in_flight: set[Deadline] = set()
        self._is_stopping = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._telemetry = Telemetry()
        self.failure: BaseException | None = None
        self.on_failure: Callable[[], None] = lambda: None

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            await self._handle(scope, receive, send)

    def stop(self, grace_s: float) -> None:
        """Accept no more requests, and cancel those in flight after a grace period. From any thread."""
        self._is_stopping = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.call_later, grace_s, self._cancel_all)

    def _cancel_all(self) -> None:
        for deadline in self._in_flight:
            deadline.cancel()

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        self._loop = asyncio.get_running_loop()
        loading = asyncio.create_task(asyncio.to_thread(self._load))
        loading.add_done_callback(self._finish_loading)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        loaded, self._loaded = self._loaded, None
        if loaded is not None:
            await asyncio.to_thread(loaded[1].close)
        await send({"type": "lifespan.shutdown.complete"})

    def _finish_loading(self, loading: asyncio.Task[tuple[App, Service]]) -> None:
        self.failure = None if loading.cancelled() else loading.exception()
        if loading.cancelled() or self.failure is not None:
            self.on_failure()
            return
        self._loaded = loading.result()
        # A thread for each request that is accepted: those that wait together are answered together.
        threads = ThreadPoolExecutor(self._loaded[1].limits.max_waiting, thread_name_prefix="request")
        asyncio.get_running_loop().set_default_executor(threads)

    async def _handle(self, scope: Message, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path == "/metrics":
            counts = self._loaded[1].counts() if self._loaded else {}
            gauges = {"requests_inside": len(self._in_flight), "ready": int(self._loaded is not None)}
            text = self._telemetry.page(gauges, counts)
            await _send(send, Response(200, text.encode(), b"text/plain; version=0.0.4"), None)
        elif self._is_stopping or self._loaded is None:
            state = "the server is stopping" if self._is_stopping else "the model is not ready: ask /ping until it is"
            await _send(send, _error(503, f"{state}.", None), None)
        elif path == "/invocations" and scope["method"] == "POST":
            await self._invoke(*self._loaded, scope, receive, send)
        else:
            await self._loaded[0](scope, receive, send)

    async def _invoke(self, app: App, service: Service, scope: Message, receive: Receive, send: Send) -> None:
        started = time.monotonic()
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"")
        request_id = given.decode() if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        deadline = Deadline(service.limits.timeout_s)
        try:
            try:
                body = await self._accept(service.limits, headers, receive, deadline)
                response = await _forward(app, scope, body, receive, deadline, request_id)
            finally:
                self._in_flight.discard(deadline)
        except Refusal as refusal:
            response = _error(refusal.status, str(refusal), request_id)
            if refusal.status != REQUEST_TIMEOUT:
                await _drain(receive)
        finally:
            deadline.cancel()
        seconds = time.monotonic() - started
        self._telemetry.count(response.status, seconds)
        logger.info("request %s: status %d in %.0f ms", request_id, response.status, 1000 * seconds)
        if response.status != CLIENT_GONE:
            await _send(send, response, request_id)

    async def _accept(
        self, limits: ServeParams, headers: dict[bytes, bytes], receive: Receive, deadline: Deadline
    ) -> bytes | None:
        """The body of a request within the limits, which is in flight from here on; None when its client has gone."""
        if len(self._in_flight) >= limits.max_waiting:
            raise Refusal(503, f"{len(self._in_flight)} requests are waiting already: send this again in a moment.")
        if b"content-type" not in headers:
            raise Refusal(415, "the request has no Content-Type: send application/json.")
        self._in_flight.add(deadline)
        try:
            async with asyncio.timeout(limits.timeout_s):
                return await _read_body(headers, receive, limits.max_body_mb)
        except TimeoutError:
            raise Refusal(
                REQUEST_TIMEOUT, f"the request did not arrive within {limits.timeout_s:g} s: send it again."
            ) from None


async def _forward(
    app: App, scope: Message, body: bytes | None, receive: Receive, deadline: Deadline, request_id: str
) -> Response:
    """MLflow's response, its errors put into one sentence."""
    if body is None:
        return Response(CLIENT_GONE, b"")
    gone = asyncio.Event()
    requests = [{"type": "http.request", "body": body, "more_body": False}]
    sent: list[Message] = []

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        deadline.cancel()
        gone.set()

    async def app_receive() -> Message:
        if requests:
            return requests.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def app_send(message: Message) -> None:
        sent.append(message)

    CURRENT.set(deadline)
    watching = asyncio.create_task(watch())
    answering = asyncio.create_task(app(scope, app_receive, app_send))
    try:
        await asyncio.wait({answering})
    finally:
        deadline.cancel()
        watching.cancel()
        answering.cancel()
    if gone.is_set():
        return Response(CLIENT_GONE, b"")
    error = answering.exception()
    if error is not None or not sent:
        logger.error("request %s failed", request_id, exc_info=error)
        return _error(500, "the server failed on this request: see its log.", request_id)
    status = sent[0]["status"]
    content = b"".join(message.get("body", b"") for message in sent[1:])
    if status >= 400:
        return _error(status, sentence_of(content), request_id)
    return Response(status, content, dict(sent[0]["headers"]).get(b"content-type", b"application/json"))


async def _read_body(headers: dict[bytes, bytes], receive: Receive, max_mb: int) -> bytes | None:
    """None when the client has gone. Refuses a body above the limit, by its Content-Length or by what comes."""
    too_large = Refusal(413, f"the request is above the limit of {max_mb} MB: send fewer or smaller videos.")
    declared = headers.get(b"content-length", b"0")
    if not declared.isdigit() or int(declared) > max_mb << 20:
        raise too_large
    chunks: list[bytes] = []
    num_bytes = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        chunks.append(message.get("body", b""))
        num_bytes += len(chunks[-1])
        if num_bytes > max_mb << 20:
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
    """One sentence of an error that MLflow would send: none of the request's data, no traceback."""
    text = content.decode("utf-8", "replace")
    try:
        found = json.loads(text)
    except ValueError:
        found = {"message": text}
    if not isinstance(found, dict) or "stack_trace" in found:
        return UNREADABLE
    text = str(found.get("message", text))
    for pattern, sentence in REWORDED:
        if match := pattern.search(text):
            return sentence.format(*match.groups())
    # MLflow puts the data before the reason, or after it.
    reason = text.rpartition("Error: ")[2].partition("\nInput:")[0]
    words = " ".join(reason.split()).strip("'\" ")
    if len(words) > MAX_SENTENCE_CHARS:
        words = words[:MAX_SENTENCE_CHARS] + ".."
    return words if words.endswith(".") else f"{words}."


def _error(status: int, sentence: str, request_id: str | None) -> Response:
    content = {"error": sentence} | ({"request_id": request_id} if request_id else {})
    headers = ((b"retry-after", b"1"),) if status == 503 else ()
    return Response(status, json.dumps(content, ensure_ascii=False).encode(), headers=headers)


async def _send(send: Send, response: Response, request_id: str | None) -> None:
    headers = [
        (b"content-type", response.content_type),
        (b"content-length", str(len(response.body)).encode()),
        *response.headers,
    ]
    if request_id:
        headers.append((b"x-request-id", request_id.encode()))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})
