"""The app around MLflow's server, without the server: readiness, sentences, counts."""

from __future__ import annotations

import asyncio
import json
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from cinetune.errors import InputError
from cinetune.serving.server.gateway import UNREADABLE, Gateway, sentence_of

pytestmark = pytest.mark.serving


async def get(gateway: Gateway, path: str, method: str = "GET") -> tuple[int, str]:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(dict(message))

    await gateway({"type": "http", "path": path, "method": method, "headers": []}, receive, send)
    return sent[0]["status"], sent[1]["body"].decode()


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


async def inner(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"inner"})


def test_a_server_is_ready_once_its_model_is_and_not_when_it_stops() -> None:
    release, closed = threading.Event(), []
    service = SimpleNamespace(
        limits=SimpleNamespace(max_waiting=2), counts=lambda: {"packs": 3}, close=lambda: closed.append(True)
    )

    def load() -> Any:
        assert release.wait(10)
        return inner, service

    async def live() -> None:
        gateway = Gateway(load)
        async with Life(gateway):
            for path in ("/ping", "/health", "/version", "/invocations"):
                status, text = await get(gateway, path)
                assert status == 503 and json.loads(text) == {"error": "the model is not ready: ask /ping until it is."}
            assert "cinetune_ready 0" in (await get(gateway, "/metrics"))[1]
            release.set()
            while "cinetune_ready 1" not in (await get(gateway, "/metrics"))[1]:
                await asyncio.sleep(0.01)
            assert await get(gateway, "/ping") == (200, "inner")
            assert "cinetune_packs_total 3" in (await get(gateway, "/metrics"))[1]
            gateway.stop(1.0)
            assert (await get(gateway, "/ping"))[0] == 503
            assert closed == []
        assert closed == [True]

    asyncio.run(live())


def test_a_model_that_cannot_be_loaded_is_told_and_never_ready() -> None:
    told = threading.Event()

    def load() -> Any:
        raise InputError("there is no such model.")

    async def live() -> None:
        gateway = Gateway(load)
        gateway.on_failure = told.set
        async with Life(gateway):
            while not told.is_set():
                await asyncio.sleep(0.01)
            assert isinstance(gateway.failure, InputError)
            assert (await get(gateway, "/ping"))[0] == 503

    asyncio.run(live())


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        ("Ensure that input is a valid JSON formatted string. Error: 'x'\nInput: \nb'{secret'\n", "not JSON"),
        ("Failed to predict data '   video\n0  AAAA'. \nError: choices are odd.", "choices are odd."),
        ("Failed to enforce schema of data 'x'. Error: Model is missing inputs ['video'].", "lack the columns 'video'"),
        ("x Error: " + "long " * 200, ".."),
    ],
)
def test_an_error_of_mlflow_becomes_one_sentence_without_the_data(message: str, sentence: str) -> None:
    found = sentence_of(json.dumps({"error_code": "BAD", "message": message}).encode())
    assert sentence in found and found.endswith(".") and "\n" not in found and len(found) < 320
    assert "secret" not in found and "AAAA" not in found


def test_a_trace_is_never_shown() -> None:
    content = {"message": "Encountered an error", "stack_trace": "Traceback: /root/secret.py"}
    assert sentence_of(json.dumps(content).encode()) == UNREADABLE
    assert sentence_of(b"Internal Server Error") == "Internal Server Error."
