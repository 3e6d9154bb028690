"""A server of OpenAI's protocol on loopback that answers, or misbehaves in every way that servers do."""

from __future__ import annotations

import gzip
import json
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from builders.servers import LoopbackServer, SilentHandler, running

COMPLETION: dict[str, Any] = {
    "id": "x",
    "object": "chat.completion",
    "model": "tiny-2026",
    "system_fingerprint": "fp_1",
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": "B"},
            "logprobs": {
                "content": [
                    {
                        "token": "B",
                        "logprob": -0.5,
                        "top_logprobs": [
                            {"token": "B", "logprob": -0.5},
                            {"token": " A", "logprob": -2.0},
                            {"token": "The", "logprob": -3.0},
                        ],
                    }
                ]
            },
        }
    ],
    "usage": {"prompt_tokens": 100, "completion_tokens": 1, "total_tokens": 101},
}
# Codings by name: what the header says, and how a body is packed.
PACKED: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "members": ("x-gzip", lambda body: gzip.compress(body[:9]) + gzip.compress(body[9:])),
    "deflate": ("Deflate", zlib.compress),
    "bare": ("deflate", lambda body: zlib.compress(body, wbits=-15)),
    "twice": ("deflate, identity, gzip", lambda body: gzip.compress(zlib.compress(body))),
    "brotli": ("br", lambda body: body),
    "torn": ("gzip", lambda body: gzip.compress(body)[:-9]),
    "unpacked": ("gzip", lambda body: body),
    "bomb": ("gzip", lambda body: gzip.compress(bytes(64 << 20))),
    "onion": ("gzip, gzip, gzip, gzip", gzip.compress),
}
# How one request is answered: the name of a behaviour, or what is said.
Behaviour = Callable[[dict[str, Any], int], str]


def completion(words: str | None = "B", **choice: Any) -> dict[str, Any]:
    first = COMPLETION["choices"][0] | {"message": {"role": "assistant", "content": words}} | choice
    return COMPLETION | {"choices": [first]}


class ModelServer(LoopbackServer):
    """`behaviour` is asked with a request's content and how often its text was asked before."""

    def __init__(self, behaviour: Behaviour) -> None:
        super().__init__(_Handler)
        self.behaviour = behaviour
        self.asked: list[dict[str, Any]] = []
        self.headers_seen: list[dict[str, str]] = []
        self.times: Counter[str] = Counter()
        self.inside = self.most_inside = 0
        self.lock = threading.Lock()

    @property
    def name(self) -> str:
        return f"openai:{self.root}/v1#tiny"


class _Handler(SilentHandler):
    server: ModelServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = text_of(content)
        server = self.server
        with server.lock:
            before = server.times[text]
            server.times[text] += 1
            server.asked.append(content)
            server.headers_seen.append(dict(self.headers))
            server.inside += 1
            server.most_inside = max(server.most_inside, server.inside)
        try:
            self._behave(server.behaviour(content, before))
        except OSError:
            self.close_connection = True
        finally:
            with server.lock:
                server.inside -= 1

    def _behave(self, behaviour: str) -> None:
        name, _, words = behaviour.partition(" ")
        if name.isdecimal():
            error = {"error": {"message": words or "no", "type": "x"}}
            self._send(json.dumps(error).encode(), int(name), {"Retry-After": "0"} if name in ("429", "503") else {})
        elif name == "says":
            self._send(json.dumps(completion(words)).encode())
        elif name == "refuses":
            message = {"role": "assistant", "content": None, "refusal": words}
            self._send(json.dumps(completion(None, message=message, logprobs=None)).encode())
        elif name == "page":
            self._send(b"<html><body>Bad gateway</body></html>", kind="text/html")
        elif name == "babble":
            self._send(json.dumps([{"hello": {"choices": 3}}]).encode())
        elif name == "nothing":
            self._send(b"")
        elif name == "hangup":
            self.close_connection = True
        elif name == "half":
            whole = json.dumps(completion()).encode()
            self._head(200, len(whole), {})
            self.wfile.write(whole[: len(whole) // 2])
            self.close_connection = True
        elif name == "stall":
            time.sleep(float(words or 5))
            self.close_connection = True
        elif name == "drip":
            self._head(200, 10_000, {})
            for _ in range(100):
                self.wfile.write(b" ")
                self.wfile.flush()
                time.sleep(0.05)
            self.close_connection = True
        elif name == "endless":
            self._head(200, 1 << 40, {})
            while True:
                self.wfile.write(b" " * 65536)
        elif name == "echo":
            self._send(json.dumps(completion(f"B {self.headers['Authorization']}")).encode())
        elif name in PACKED:
            status, _, said = words.partition(" ")
            error = {"error": {"message": said}}
            whole = json.dumps(error if status.isdecimal() else completion(words)).encode()
            coding, pack = PACKED[name]
            self._send(pack(whole), int(status) if status.isdecimal() else 200, {"Content-Encoding": coding})
        elif name == "moved":
            self._send(b"", 302, {"Location": words})
        else:
            raise AssertionError(behaviour)

    def _send(
        self, content: bytes, status: int = 200, headers: dict[str, str] | None = None, kind: str = "application/json"
    ) -> None:
        self._head(status, len(content), {"Content-Type": kind} | (headers or {}))
        self.wfile.write(content)

    def _head(self, status: int, length: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(length)} | headers).items():
            self.send_header(name, value)
        self.end_headers()


def text_of(content: dict[str, Any]) -> str:
    return "\n".join(part["text"] for part in content["messages"][0]["content"] if part["type"] == "text")


@contextmanager
def judged(behaviour: Behaviour | str = "says B") -> Iterator[ModelServer]:
    with running(ModelServer(behaviour if callable(behaviour) else lambda *_: behaviour)) as server:
        yield server
