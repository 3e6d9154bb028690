"""Responses in the shape of OpenAI's: a completion, whole or as events, the list of models, an error."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cinetune.inference.scoring import Reply
from cinetune.serving.openai.chat import Chat
from cinetune.serving.server.responses import Refusal, Response
from cinetune.task.description import LETTERS

EVENTS = b"text/event-stream"
# For a probability of 0, as OpenAI writes it, and for the letters' together where it is too small for a number.
LEAST, LEAST_MASS = -9999.0, -1000.0
CODES = {401: "invalid_api_key", 404: "not_found"}


@dataclass(frozen=True)
class Served:
    """A model's name for clients, and since when it is served (s)."""

    model: str
    created: int

    def card(self) -> dict[str, Any]:
        return {"id": self.model, "object": "model", "created": self.created, "owned_by": "cinetune"}

    def listed(self) -> dict[str, Any]:
        return {"object": "list", "data": [self.card()]}


def completion(chat: Chat, reply: Reply, limit: int, served: Served, request_id: str) -> Response:
    """The response to a chat; `limit`: how many tokens the words could have."""
    head = {"id": f"chatcmpl-{request_id}", "created": int(time.time()), "model": served.model}
    choice = {
        "index": 0,
        "logprobs": _logprobs(chat, reply),
        "finish_reason": "length" if reply.word_tokens >= limit else "stop",
    }
    usage = {
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": reply.word_tokens,
        "total_tokens": reply.prompt_tokens + reply.word_tokens,
    }
    if chat.is_streamed:
        return Response(200, _events(head, choice, reply.raw, usage if chat.shows_usage else None), EVENTS)
    message = {"role": "assistant", "content": reply.raw, "refusal": None}
    whole = head | {"object": "chat.completion", "choices": [choice | {"message": message}], "usage": usage}
    return Response(200, _encode(whole))


def _events(head: Mapping[str, Any], choice: Mapping[str, Any], words: str, usage: Mapping[str, Any] | None) -> bytes:
    """Server-sent events: the role, the words, the reason of their end, and the usage where it was asked for."""

    def event(choices: list[dict[str, Any]], **more: Any) -> bytes:
        return b"data: %s\n\n" % _encode({**head, "object": "chat.completion.chunk", "choices": choices, **more})

    def delta(content: dict[str, Any], **more: Any) -> bytes:
        return event([{"index": 0, "delta": content, "logprobs": None, "finish_reason": None, **more}])

    events = [
        delta({"role": "assistant", "content": ""}),
        delta({"content": words}, logprobs=choice["logprobs"]),
        delta({}, finish_reason=choice["finish_reason"]),
        *([event([], usage=usage)] if usage else []),
        b"data: [DONE]\n\n",
    ]
    return b"".join(events)


def _logprobs(chat: Chat, reply: Reply) -> dict[str, Any] | None:
    """Of the option letters where the answer begins, whatever the words then are; None for an open question."""
    if chat.top_logprobs is None or reply.probabilities is None:
        return None
    mass = max(math.log(reply.letter_mass), LEAST_MASS) if reply.letter_mass > 0 else LEAST_MASS
    logprobs = {
        letter: math.log(share) + mass if share > 0 else LEAST
        for letter, share in zip(LETTERS, reply.probabilities, strict=False)
    }
    # Of equal ones the first stays first.
    letters = [
        {"token": letter, "logprob": logprob, "bytes": [ord(letter)]}
        for letter, logprob in sorted(logprobs.items(), key=lambda item: -item[1])
    ]
    return {"content": [letters[0] | {"top_logprobs": letters[: chat.top_logprobs]}], "refusal": None}


def error(refusal: Refusal, request_id: str) -> Response:
    """The request's id is in the response's headers."""
    kind = "server_error" if refusal.status >= 500 else "invalid_request_error"
    code = refusal.code or CODES.get(refusal.status)
    content = {"error": {"message": str(refusal), "type": kind, "param": None, "code": code}}
    return Response(refusal.status, _encode(content), headers=refusal.headers)


def as_json(content: Mapping[str, Any]) -> Response:
    return Response(200, _encode(content))


def _encode(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, allow_nan=False).encode()
