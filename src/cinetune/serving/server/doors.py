"""The protocols of the server, in front of one service: MLflow's at /invocations, OpenAI's below /v1."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from cinetune.serving.openai import chat as chats
from cinetune.serving.openai import completion
from cinetune.serving.openai.completion import Served
from cinetune.serving.requests import form
from cinetune.serving.server import responses
from cinetune.serving.server.deadline import Deadline
from cinetune.serving.server.responses import Refusal, Response
from cinetune.serving.service import Service

INVOCATIONS, CHAT = "/invocations", "/v1/chat/completions"
MODELS, MODEL = "/v1/models", "/v1/models/"
NO_SUCH_MODEL = "model_not_found"


@dataclass(frozen=True)
class Request:
    """A request whose body is whole."""

    body: bytes
    id: str
    deadline: Deadline


def invoke(service: Service, request: Request, served: Served) -> Response:
    """What is answered at /invocations. Raises as the service does, and InputError for a body that is no request."""
    rows, parameters = form.read(request.body)
    answers = service.answer(rows, parameters.options(service.defaults), request.deadline)
    return Response(200, json.dumps({"predictions": answers}, allow_nan=False).encode())


def complete(service: Service, request: Request, served: Served) -> Response:
    """What is answered at /v1/chat/completions. Raises Refusal for another model than the one that is served."""
    chat = chats.read(request.body)
    check_model(chat.model, served)
    options = chat.options(service.defaults)
    reply = service.reply(chat.row, options, request.deadline)
    return completion.completion(chat, reply, options.max_new_tokens, served, request.id)


def models(path: str, served: Served) -> Response:
    """The list of models, or the one that a path names. Raises Refusal for one that is not served."""
    if path == MODELS:
        return completion.as_json(served.listed())
    check_model(path.removeprefix(MODEL), served)
    return completion.as_json(served.card())


def check_model(name: str, served: Served) -> None:
    if name != served.model:
        raise Refusal(404, f"there is no such model here: ask for {served.model}.", NO_SUCH_MODEL)


POSTED: dict[str, Callable[[Service, Request, Served], Response]] = {INVOCATIONS: invoke, CHAT: complete}


def error_of(path: str) -> Callable[[Refusal, str], Response]:
    """How a path's protocol tells an error."""
    return completion.error if path.startswith("/v1/") or path == "/v1" else responses.error
