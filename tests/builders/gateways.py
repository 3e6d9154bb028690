"""A gateway on loopback in this process, in front of a service that is loaded already."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from cinetune.serving.server.gateway import Gateway
from cinetune.serving.server.listener import bind

WAIT_S = 60


class Kept:
    """A service that outlives its gateway."""

    def __init__(self, service: Any) -> None:
        self._service = service

    def __getattr__(self, name: str) -> Any:
        return getattr(self._service, name)

    def close(self) -> None:
        pass


@contextmanager
def listening(service: Any, name: str = "clips", key: bytes | None = None) -> Iterator[int]:
    """The port of a gateway that is ready."""
    server = uvicorn.Server(
        uvicorn.Config(Gateway(lambda: Kept(service), "{}", name, key), access_log=False, lifespan="on")
    )
    with bind("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        port = listener.getsockname()[1]
        wait_until_ready(port)
        yield port
        server.should_exit = True
        thread.join(WAIT_S)


def wait_until_ready(port: int) -> None:
    until = time.monotonic() + WAIT_S
    while time.monotonic() < until:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as raw:
                raw.sendall(b"GET /ping HTTP/1.0\r\n\r\n")
                if b" 200 " in raw.recv(64):
                    return
        except OSError:
            pass
        time.sleep(0.02)
    raise TimeoutError("the gateway is not ready")
