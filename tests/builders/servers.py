"""Web servers on loopback: one records what it is asked for, one misbehaves in every way that servers do."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TypeVar

BLOCK = 4096


class LoopbackServer(ThreadingHTTPServer):
    """On a free port."""

    daemon_threads = True

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class SilentHandler(BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


Server = TypeVar("Server", bound=LoopbackServer)


@contextmanager
def running(server: Server) -> Iterator[Server]:
    with server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield server
        server.shutdown()


class ClipServer(LoopbackServer):
    """Paths are /<behaviour>/<name>: whole, slow, stall, drip, cut, status codes, once-<behaviour>, ..."""

    def __init__(self, content: bytes) -> None:
        super().__init__(_Handler)
        self.content, self.other = content, content
        self.hits: Counter[str] = Counter()
        self.headers_seen: list[dict[str, str]] = []


class _Handler(SilentHandler):
    server: ClipServer
    protocol_version = "HTTP/1.0"

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server.hits[path] += 1
        self.server.headers_seen.append(dict(self.headers))
        behaviour = path.split("/")[1]
        if behaviour.startswith("once-"):
            behaviour = behaviour.removeprefix("once-") if self.server.hits[path] == 1 else "whole"
        content = self.server.content
        if behaviour == "changes":
            # The first attempt breaks off in one file, the second gets another.
            behaviour, content = ("cut", self.server.other) if self.server.hits[path] == 1 else ("whole", content)
        self._behave(behaviour, content)

    def _behave(self, behaviour: str, content: bytes) -> None:
        if behaviour.isdecimal():
            self.send_response(int(behaviour))
            self.send_header("Retry-After", "0")
            self.end_headers()
        elif behaviour == "page":
            self._send(f"<video src='{self.server.root}/secret/a.mp4'></video>".encode())
        elif behaviour == "playlist":
            self._send(f"#EXTM3U\n#EXTINF:10,\n{self.server.root}/secret/a.ts\n#EXT-X-ENDLIST\n".encode())
        elif behaviour == "empty":
            self._send(b"")
        elif behaviour == "endless":
            self._head(None)
            self._write(content * 1000)
        elif behaviour == "hangup":
            self.close_connection = True
        elif behaviour == "half":
            self._send(content[: len(content) // 2])
        else:
            self._head(len(content))
            if behaviour == "cut":
                self._write(content[: len(content) // 2])
            elif behaviour == "stall":
                self._write(content[:BLOCK])
                time.sleep(20)
            elif behaviour == "drip":
                for place in range(len(content)):
                    self._write(content[place : place + 1])
                    time.sleep(0.05)
            elif behaviour == "slow":
                for place in range(0, len(content), BLOCK):
                    self._write(content[place : place + BLOCK])
                    time.sleep(0.05)
            else:
                self._write(content)

    def _head(self, length: int | None) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "video/mp4")
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def _send(self, content: bytes) -> None:
        self._head(len(content))
        self._write(content)

    def _write(self, content: bytes) -> None:
        try:
            self.wfile.write(content)
        except OSError:
            self.close_connection = True


@contextmanager
def serving(content: bytes) -> Iterator[ClipServer]:
    with running(ClipServer(content)) as server:
        yield server


@contextmanager
def recording(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[tuple[int, list[str]]]:
    """A server on loopback that answers every GET so: its port, and the paths that were asked for."""
    hits: list[str] = []

    class Handler(SilentHandler):
        def do_GET(self) -> None:
            hits.append(self.path)
            answer(self)

    with running(LoopbackServer(Handler)) as server:
        yield server.server_port, hits
