"""The server as an ASGI app behind both doors: limits, readiness, keys, request ids, metrics, errors in one sentence.

A place among those that are answered is taken by a request whose body is whole. One whose client disconnects, or whose
deadline passes, is cancelled.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import re
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from cinetune.errors import InputError
from cinetune.serving.batching import BusyError
from cinetune.serving.openai.completion import Served
from cinetune.serving.requests import bodies
from cinetune.serving.server import doors, keys
from cinetune.serving.server.deadline import Deadline
from cinetune.serving.server.responses import Message, Receive, Refusal, Response, Send, send_response
from cinetune.serving.server.telemetry import Telemetry
from cinetune.serving.server.uploads import TOO_SLOW, Body, Uploads, drain
from cinetune.serving.service import FAILED, MANY_WAITING, TIME_OVER, Service, one_sentence

logger = logging.getLogger(__name__)

REQUEST_ID = re.compile(rb"[A-Za-z0-9_.-]{1,64}")
CLIENT_GONE, TOO_LATE = 499, 504
GONE = Response(CLIENT_GONE, b"")
METHODS = {
    **dict.fromkeys(doors.POSTED, ("POST",)),
    doors.MODELS: ("GET", "HEAD"),
    "/ping": ("GET", "HEAD"),
    "/health": ("GET", "HEAD"),
    "/version": ("GET", "HEAD"),
    "/metrics": ("GET", "HEAD"),
}
STOPPING = "the server is stopping: send this again in a moment."


class Received(NamedTuple):
    """A request whose body is still to be read."""

    path: str
    request_id: str
    headers: dict[bytes, bytes]
    receive: Receive


class Gateway:
    """`load` makes the service, in a thread, while /ping answers 503; `version` is what /version shows.

    name: the model's, for clients of OpenAI's; key: which clients must show, where there is one. Where loading fails,
    `failure` holds its exception and `on_failure` is called.
    """

    def __init__(
        self, load: Callable[[], Service], version: str, name: str = "cinetune", key: bytes | None = None
    ) -> None:
        self._load, self._version, self._key = load, version, key
        self._served = Served(name, int(time.time()))
        self._service: Service | None = None
        self._uploads: Uploads | None = None
        self._threads: ThreadPoolExecutor | None = None
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
        service, self._service = self._service, None
        if service is not None:
            await asyncio.to_thread(service.close)
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
        await send({"type": "lifespan.shutdown.complete"})

    def _finish_loading(self, loading: asyncio.Task[Service]) -> None:
        self.failure = None if loading.cancelled() else loading.exception()
        if loading.cancelled() or self.failure is not None:
            self.on_failure()
            return
        service = loading.result()
        limits = service.limits
        self._uploads = Uploads(limits.max_body_mb, limits.timeout_s)
        # A thread for each request that is accepted: those that wait together are answered together.
        self._threads = ThreadPoolExecutor(limits.max_waiting, thread_name_prefix="request")
        # What was loaded stays to the end: looking through it for garbage costs seconds at the end, and pauses before.
        gc.freeze()
        self._service = service

    async def _handle(self, scope: Message, receive: Receive, send: Send) -> None:
        path, headers = scope["path"], dict(scope["headers"])
        given = headers.get(b"x-request-id", b"")
        request_id = given.decode() if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        try:
            self._check_path(path, scope["method"])
            if path in doors.POSTED:
                return await self._post(self._ready(), Received(path, request_id, headers, receive), send)
            response = self._get(path, headers)
        except Refusal as refusal:
            response = doors.error_of(path)(refusal, request_id)
        await send_response(send, response, request_id)

    def _check_path(self, path: str, method: str) -> None:
        methods = METHODS.get(doors.MODELS if path.startswith(doors.MODEL) else path)
        if methods is None:
            raise Refusal(404, f"there is nothing at this path: use one of {', '.join(METHODS)}.")
        if method not in methods:
            allowed = ", ".join(methods)
            told = f"{bodies.shorten(path)} takes {allowed} alone."
            raise Refusal(405, told, headers=((b"allow", allowed.encode()),))

    def _ready(self) -> Service:
        if self._is_stopping:
            raise Refusal(503, STOPPING)
        if self._service is None:
            raise Refusal(503, "the model is not ready: ask /ping until it is.")
        return self._service

    def _get(self, path: str, headers: dict[bytes, bytes]) -> Response:
        if path == "/metrics":
            return Response(200, self._metrics().encode(), b"text/plain; version=0.0.4")
        self._ready()
        if path.startswith(doors.MODELS):
            keys.check(self._key, headers)
            return doors.models(path, self._served)
        return Response(200, self._version.encode() if path == "/version" else b"\n")

    def _metrics(self) -> str:
        counts = self._service.counts() if self._service else {}
        held = self._uploads.num_bytes if self._uploads else 0
        gauges = {"requests_inside": len(self._in_flight), "body_bytes": held, "ready": int(self._service is not None)}
        return self._telemetry.page(gauges, counts)

    async def _post(self, service: Service, request: Received, send: Send) -> None:
        started = time.monotonic()
        deadline = Deadline(service.limits.timeout_s)
        try:
            response = await self._respond(service, request, deadline)
        except Refusal as refusal:
            response = doors.error_of(request.path)(refusal, request.request_id)
        finally:
            deadline.cancel()
            self._in_flight.discard(deadline)
        seconds = time.monotonic() - started
        self._telemetry.count(response.status, seconds)
        logger.info("request %s: status %d in %.0f ms", request.request_id, response.status, 1000 * seconds)
        if response.status != CLIENT_GONE:
            await send_response(send, response, request.request_id)

    async def _respond(self, service: Service, request: Received, deadline: Deadline) -> Response:
        """Raises Refusal for a request that is not answered."""
        assert self._uploads is not None
        with Body(self._uploads) as body:
            try:
                keys.check(self._key, request.headers)
                self._check_room(service)
                is_whole = await self._uploads.read(request.headers, request.receive, body)
            except Refusal as refusal:
                if refusal.status != TOO_SLOW:
                    await drain(request.receive)
                raise
            if not is_whole:
                return GONE
            self._check_room(service)
            self._in_flight.add(deadline)

            def work() -> Response | Refusal:
                return answer(
                    service, request.path, doors.Request(body.take(), request.request_id, deadline), self._served
                )

            return await self._answer(work, request.receive, deadline)

    def _check_room(self, service: Service) -> None:
        if self._is_stopping:
            raise Refusal(503, STOPPING)
        if len(self._in_flight) >= service.limits.max_waiting:
            raise Refusal(503, MANY_WAITING)

    async def _answer(self, work: Callable[[], Response | Refusal], receive: Receive, deadline: Deadline) -> Response:
        gone = asyncio.Event()

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            deadline.cancel()
            gone.set()

        watching = asyncio.create_task(watch())
        working = asyncio.get_running_loop().run_in_executor(self._threads, work)
        try:
            response = await working
        finally:
            deadline.cancel()
            watching.cancel()
        if isinstance(response, Response):
            return response
        if gone.is_set():
            return GONE
        raise Refusal(503, STOPPING) if response.status == TOO_LATE and self._is_stopping else response


def answer(service: Service, path: str, request: doors.Request, served: Served) -> Response | Refusal:
    """What is answered to a body, or why nothing is; an error that left this thread would keep all that it saw."""
    try:
        return doors.POSTED[path](service, request, served)
    except Refusal as refusal:
        return Refusal(refusal.status, str(refusal), refusal.code)
    except InputError as reason:
        return Refusal(400, one_sentence(str(reason)))
    except BusyError:
        return Refusal(503, MANY_WAITING)
    except TimeoutError:
        return Refusal(TOO_LATE, TIME_OVER)
    except Exception:
        logger.exception("a request failed")
        return Refusal(500, FAILED)
