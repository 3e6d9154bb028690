"""What the server sends: a body with its status, or one sentence that says why there is none."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True)
class Response:
    status: int
    body: bytes
    content_type: bytes = b"application/json"
    headers: Headers = field(default=())


class Refusal(Exception):
    """A status and one sentence; `code` is a word for programs, where there is one beside the status."""

    def __init__(self, status: int, sentence: str, code: str = "", headers: Headers = ()) -> None:
        super().__init__(sentence)
        self.status, self.code = status, code
        self.headers: Headers = (*headers, (b"retry-after", b"1")) if status == 503 else headers


def error(refusal: Refusal, request_id: str) -> Response:
    content = {"error": str(refusal), "request_id": request_id}
    return Response(refusal.status, json.dumps(content).encode(), headers=refusal.headers)


async def send_response(send: Send, response: Response, request_id: str) -> None:
    headers = [
        (b"content-type", response.content_type),
        (b"content-length", str(len(response.body)).encode()),
        (b"x-request-id", request_id.encode()),
        *response.headers,
    ]
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})
