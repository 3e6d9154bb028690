"""The app around MLflow's server, without the server: readiness, sentences, counts."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from cinetune.errors import InputError
from cinetune.inference.scoring import Reply
from cinetune.serving.requests.form import Options
from cinetune.serving.server import uploads
from cinetune.serving.server.deadline import Deadline
from cinetune.serving.server.gateway import Gateway

pytestmark = pytest.mark.serving

WAIT_S = 30


async def get(gateway: Gateway, path: str, method: str = "GET") -> tuple[int, str]:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(dict(message))

    headers = [(b"x-request-id", b"mine-1")]
    await gateway({"type": "http", "path": path, "method": method, "headers": headers}, receive, send)
    assert (b"x-request-id", b"mine-1") in sent[0]["headers"]
    return sent[0]["status"], sent[1]["body"].decode()


class Client:
    """A request whose body is sent as the test says."""

    def __init__(
        self, gateway: Gateway, headers: Any = ((b"content-type", b"application/json"),), path: str = "/invocations"
    ) -> None:
        self._to: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._sent: list[dict[str, Any]] = []

        async def send(message: Any) -> None:
            self._sent.append(dict(message))

        scope = {"type": "http", "path": path, "method": "POST", "headers": list(headers)}
        self._task = asyncio.create_task(gateway(scope, self._to.get, send))

    async def send(self, content: bytes, is_last: bool = True) -> None:
        await self._to.put({"type": "http.request", "body": content, "more_body": not is_last})
        await asyncio.sleep(0)

    async def leave(self) -> None:
        await self._to.put({"type": "http.disconnect"})

    async def response(self) -> tuple[int, str]:
        async with asyncio.timeout(WAIT_S):
            while not self._sent and not self._task.done():
                await asyncio.sleep(0.01)
            await self.leave()
            await self._task
        return self._sent[0]["status"], self._sent[1]["body"].decode()


class Life:
    """A gateway between its start and its end."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway, self._to, self._done = gateway, asyncio.Queue(), asyncio.Queue()

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._gateway({"type": "lifespan"}, self._to.get, self._done.put))
        await self._to.put({"type": "lifespan.startup"})
        assert (await self._done.get())["type"] == "lifespan.startup.complete"

    async def __aexit__(self, *_: object) -> None:
        await self._to.put({"type": "lifespan.shutdown"})
        assert (await self._done.get())["type"] == "lifespan.shutdown.complete"
        await self._task


class Echo:
    """A service that answers each question with itself, when it may."""

    def __init__(self, **limits: Any) -> None:
        limits = {"max_waiting": 2, "max_body_mb": 1, "timeout_s": 20.0} | limits
        self.limits, self.defaults = SimpleNamespace(**limits), Options(6, "lenient", 8)
        self.closed: list[bool] = []
        self.may = threading.Event()
        self.may.set()

    def counts(self) -> dict[str, int]:
        return {"packs": 3}

    def close(self) -> None:
        self.closed.append(True)

    def answer(self, rows: list[dict[str, Any]], options: Options, deadline: Deadline) -> list[Any]:
        while not self.may.wait(0.01):
            deadline.check()
        if rows[0]["question"] == "?":
            raise ValueError("of /secret.py")
        return [item["question"] for item in rows]

    def reply(self, row: dict[str, Any], options: Options, deadline: Deadline) -> Reply:
        return Reply(self.answer([row], options, deadline)[0], None, prompt_tokens=3, word_tokens=1)


async def until(gateway: Gateway, line: str) -> None:
    """Until the server's metrics hold a line."""
    async with asyncio.timeout(WAIT_S):
        while f"{line}\n" not in (await get(gateway, "/metrics"))[1]:
            await asyncio.sleep(0.01)


async def ready(gateway: Gateway) -> None:
    await until(gateway, "cinetune_ready 1")


@asynccontextmanager
async def running(service: Echo | None = None, key: bytes | None = None) -> AsyncIterator[Gateway]:
    """A gateway that is ready."""
    gateway = Gateway(lambda: service or Echo(), "1.2", "clips", key)
    async with Life(gateway):
        await ready(gateway)
        yield gateway


async def ask(gateway: Gateway, content: bytes, **options: Any) -> tuple[int, str]:
    """The response to a body that is sent whole."""
    client = Client(gateway, **options)
    await client.send(content)
    return await client.response()


def body(question: str = "Who?") -> bytes:
    return json.dumps({"inputs": [{"video": "clip:a", "question": question}]}).encode()


CHAT = "/v1/chat/completions"


def chat(question: str = "Who?") -> bytes:
    content = [
        {"type": "video_url", "video_url": {"url": "clip:a"}},
        {"type": "text", "text": question},
    ]
    return json.dumps({"model": "clips", "messages": [{"role": "user", "content": content}]}).encode()


Asked = Callable[..., bytes]
DOORS = pytest.mark.parametrize(("path", "asked"), [("/invocations", body), (CHAT, chat)])


def test_a_server_is_ready_once_its_model_is_and_not_when_it_stops() -> None:
    release, service = threading.Event(), Echo()

    def load() -> Any:
        assert release.wait(WAIT_S)
        return service

    async def live() -> None:
        gateway = Gateway(load, "1.2")
        async with Life(gateway):
            for path, method in (("/ping", "GET"), ("/health", "HEAD"), ("/version", "GET"), ("/invocations", "POST")):
                status, text = await get(gateway, path, method)
                told = {"error": "the model is not ready: ask /ping until it is.", "request_id": "mine-1"}
                assert status == 503 and json.loads(text) == told
            assert "cinetune_ready 0" in (await get(gateway, "/metrics"))[1]
            release.set()
            await ready(gateway)
            for path in ("/ping", "/health"):
                assert await get(gateway, path) == await get(gateway, path, "HEAD") == (200, "\n")
            assert await get(gateway, "/version") == (200, "1.2")
            assert "cinetune_packs_total 3" in (await get(gateway, "/metrics"))[1]
            gateway.stop(1.0)
            assert (await get(gateway, "/ping"))[0] == 503
            assert service.closed == []
        assert service.closed == [True]

    asyncio.run(live())


def test_other_paths_and_methods_are_refused_and_nothing_describes_the_server() -> None:
    async def live() -> None:
        async with running() as gateway:
            for path in ("/", "/docs", "/openapi.json", "/redoc", "/ping/", "/nothing"):
                status, text = await get(gateway, path)
                assert status == 404 and json.loads(text)["request_id"] == "mine-1"
            long = "/v1/models/" + "x" * 5000
            for path, method in (("/invocations", "GET"), ("/ping", "POST"), ("/metrics", "DELETE"), (long, "POST")):
                status, text = await get(gateway, path, method)
                assert status == 405 and len(text) < 300

    asyncio.run(live())


JSON = (b"content-type", b"application/json")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([JSON], 200),
        ([(b"content-type", b"Application/JSON")], 200),
        ([(b"content-type", b'application/json; charset="utf-8"')], 200),
        ([(b"content-type", b"application/json;charset=UTF-8")], 200),
        ([(b"content-type", b"application/json; charset=latin-1")], 415),
        ([(b"content-type", b"text/csv")], 415),
        ([(b"content-type", b"application/vnd.apache.parquet")], 415),
        ([(b"content-type", b"application/jsonl")], 415),
        ([(b"content-type", b"")], 415),
        ([(b"content-type", b"\xff\xfe")], 415),
        ([], 415),
        ([JSON, (b"content-encoding", b"gzip")], 415),
        ([JSON, (b"content-length", b"2000000")], 413),
        ([JSON, (b"content-length", b"many")], 413),
    ],
)
def test_json_alone_is_taken(headers: list[tuple[bytes, bytes]], status: int) -> None:
    async def live() -> None:
        async with running() as gateway:
            found, text = await ask(gateway, body(), headers=headers)
            assert found == status, text
            assert json.loads(text)["predictions" if status == 200 else "error"]

    asyncio.run(live())


@DOORS
def test_a_failure_is_told_without_its_words_and_the_next_request_is_answered(path: str, asked: Asked) -> None:
    async def live() -> None:
        async with running() as gateway:
            for question, status in (("?", 500), ("Who?", 200)):
                found, text = await ask(gateway, asked(question), path=path)
                assert found == status and "secret" not in text

    asyncio.run(live())


def test_half_sent_bodies_take_no_place_and_end_when_no_more_of_them_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "WINDOW_S", 0.5)

    async def live() -> None:
        async with running() as gateway:
            halves = [Client(gateway) for _ in range(64)]
            for half in halves:
                await half.send(b'{"inputs": ', is_last=False)
            assert (await ask(gateway, body()))[0] == 200
            for half in halves:
                assert (await half.response())[0] == 408
            assert "cinetune_body_bytes 0" in (await get(gateway, "/metrics"))[1]

    asyncio.run(live())


def test_all_bodies_together_take_a_number_of_bytes_and_give_it_back() -> None:
    async def live() -> None:
        async with running() as gateway:
            halves = [Client(gateway) for _ in range(uploads.MAX_BODIES)]
            for half in halves:
                await half.send(bytes(1 << 20), is_last=False)
            await until(gateway, f"cinetune_body_bytes {uploads.MAX_BODIES << 20}")
            status, text = await ask(gateway, body())
            assert status == 503 and "bytes of requests" in text
            for half in halves:
                await half.leave()
            await until(gateway, "cinetune_body_bytes 0")
            assert (await ask(gateway, body()))[0] == 200

    asyncio.run(live())


@DOORS
def test_one_too_many_is_told_at_once_and_its_place_comes_back(path: str, asked: Asked) -> None:
    service = Echo()

    async def live() -> None:
        async with running(service) as gateway:
            service.may.clear()
            inside = [Client(gateway, path=path) for _ in range(2)]
            for client in inside:
                await client.send(asked())
            await until(gateway, "cinetune_requests_inside 2")
            # The places are those of both doors together.
            assert (await ask(gateway, body()))[0] == (await ask(gateway, chat(), path=CHAT))[0] == 503
            await inside[0].leave()
            await until(gateway, "cinetune_requests_inside 1")
            service.may.set()
            assert (await inside[1].response())[0] == 200

    asyncio.run(live())


@DOORS
@pytest.mark.parametrize(("is_stopped", "status"), [(True, 503), (False, 504)])
def test_what_is_cancelled_by_a_stop_may_be_sent_again_and_what_is_late_is_late(
    is_stopped: bool, status: int, path: str, asked: Asked
) -> None:
    service = Echo(timeout_s=20.0 if is_stopped else 0.3)
    service.may.clear()

    async def live() -> None:
        async with running(service) as gateway:
            client = Client(gateway, path=path)
            await client.send(asked())
            await until(gateway, "cinetune_requests_inside 1")
            if is_stopped:
                gateway.stop(0.1)
            found, text = await client.response()
            assert found == status and ("stopping" in text) is is_stopped

    asyncio.run(live())


def test_a_model_that_cannot_be_loaded_is_told_and_never_ready() -> None:
    told = threading.Event()

    def load() -> Any:
        raise InputError("there is no such model.")

    async def live() -> None:
        gateway = Gateway(load, "1.2")
        gateway.on_failure = told.set
        async with Life(gateway):
            async with asyncio.timeout(WAIT_S):
                while not told.is_set():
                    await asyncio.sleep(0.01)
            assert isinstance(gateway.failure, InputError)
            assert (await get(gateway, "/ping"))[0] == 503

    asyncio.run(live())


@DOORS
def test_without_the_key_no_body_is_read(path: str, asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    service = Echo()
    monkeypatch.setattr(uploads, "DRAIN_S", 0.1)

    async def live() -> None:
        async with running(service, b"right") as gateway:
            json_alone = (b"content-type", b"application/json")
            for shown, status in ((b"Bearer wrong", 401), (b"Bearer right", 200)):
                headers = [json_alone, (b"authorization", shown)]
                assert (await ask(gateway, asked(), path=path, headers=headers))[0] == status
            half = Client(gateway, path=path)
            await half.send(b"{" * 1000, is_last=False)
            await until(gateway, "cinetune_body_bytes 0")
            assert (await half.response())[0] == 401

    asyncio.run(live())
