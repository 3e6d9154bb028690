"""What a chat completion's request asks, and each way in which one is refused: in one sentence that shows nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from builders.chats import CHOICES, message, request
from builders.refusals import sentence
from cinetune.errors import InputError
from cinetune.serving.openai import chat

pytestmark = pytest.mark.serving

PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}}
CLIP = {"type": "video_url", "video_url": {"url": "clip:clip0"}}


def read(content: Any) -> chat.Chat:
    return chat.read(content if isinstance(content, bytes) else json.dumps(content).encode())


def test_a_message_becomes_a_row() -> None:
    found = read(request(subtitles="Look."))
    assert found.row == {
        "video": "clip:clip0",
        "question": "Where are they?",
        "choices": CHOICES,
        "subtitles": "Look.",
    }
    assert (found.model, found.max_tokens, found.top_logprobs, found.is_streamed) == ("clips", None, None, False)
    pictures = read(request(message(media=[PICTURE] * 8)))
    assert pictures.row["images"] == ["data:image/png;base64,AAAA"] * 8 and "video" not in pictures.row


def test_an_open_question_has_no_choices() -> None:
    content = [CLIP, {"type": "text", "text": "Who is it?"}]
    found = read(request({"role": "user", "content": content}))
    assert found.row == {"video": "clip:clip0", "question": "Who is it?", "choices": None, "subtitles": ""}


def test_parameters_that_say_what_is_so_anyhow_are_taken() -> None:
    neutral = {
        "temperature": 0.0, "n": 1, "top_p": 0.9, "seed": 3, "user": "me", "stop": None, "tools": [], "store": False,
        "logit_bias": {}, "response_format": {"type": "text"}, "presence_penalty": 0, "stream_options": None,
    }  # fmt: skip
    assert read(request(**neutral)).row == read(request()).row
    found = read(request(max_completion_tokens=5, logprobs=True, top_logprobs=3, stream=True))
    assert (found.max_tokens, found.top_logprobs, found.is_streamed, found.shows_usage) == (5, 3, True, False)
    assert read(request(logprobs=True)).top_logprobs == 0
    assert read(request(stream=True, stream_options={"include_usage": True})).shows_usage


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


TEXT = {"type": "text", "text": "Who?"}


def video(url: Any) -> dict[str, Any]:
    return request(user(TEXT, {"type": "video_url", "video_url": {"url": url}}))


def image(url: Any) -> dict[str, Any]:
    return request(user(TEXT, {"type": "image_url", "image_url": {"url": url}}))


BAD: dict[str, tuple[Any, str]] = {
    "no JSON": (b"{", "is not JSON"),
    "no object": ([1], "must be a JSON object with model and messages"),
    "nothing": ({}, "messages must be a list"),
    "no messages": (request() | {"messages": []}, "messages must be a list"),
    "a text for messages": (request() | {"messages": "hello"}, "messages must be a list"),
    "a text for a message": (request() | {"messages": ["hello"]}, "messages.0 must be an object"),
    "a system message": (request() | {"messages": [{"role": "system", "content": "x"}, message()]}, "is a system mess"),
    "a developer's": (request() | {"messages": [{"role": "developer", "content": "x"}]}, "is a developer message"),
    "an assistant's": (request() | {"messages": [message(), {"role": "assistant"}, message()]}, "messages.1.role must"),
    "an unknown role": (request(message() | {"role": "director"}), "must be user, got 'director'"),
    "no role": (request({"content": "x"}), "must be user, got none"),
    "a role that is no text": (request(message() | {"role": 3}), "must be user, got none"),
    "two messages": (request() | {"messages": [message(), message()]}, "ask one question a request"),
    "no content": (request({"role": "user"}), "content is missing"),
    "null content": (request({"role": "user", "content": None}), "content must be a list"),
    "a number as content": (request({"role": "user", "content": 7}), "content must be a list"),
    "tool calls": (
        request(message() | {"tool_calls": [{"id": "a"}]}),
        "key 'tool_calls' is not known: choose from role",
    ),
    "tools": (request(tools=[{"type": "function"}]), "tools cannot be called"),
    "a tool choice": (request(tool_choice="required"), "tool_choice is not supported"),
    "n of 5": (request(n=5), "n must be 1"),
    "n that is true": (request(n=True), "n must be 1"),
    "temperature 2": (request(temperature=2), "temperature must be 0"),
    "temperature 1": (request(temperature=1.0), "temperature must be 0"),
    "temperature NaN": (json.dumps(request(temperature=float("nan"))).encode(), "temperature must be 0"),
    "a stop word": (request(stop=["\n"]), "stop is not supported"),
    "JSON wanted": (request(response_format={"type": "json_object"}), "response_format is not supported"),
    "an unknown key": (request(best_of=2), "key 'best_of' is not known"),
    "no model": ({"messages": [message()]}, "model is missing"),
    "a model that is no text": (request(model=3), "model must be text"),
    "max_tokens 0": (request(max_tokens=0), "max_tokens must be at least 1"),
    "max_tokens -1": (request(max_completion_tokens=-1), "max_tokens must be at least 1"),
    "max_tokens as text": (request(max_tokens="5"), "max_tokens must be a whole number"),
    "max_tokens twice": (request(max_tokens=5, max_completion_tokens=5), "give one of them"),
    "top_logprobs alone": (request(top_logprobs=5), "needs logprobs"),
    "21 top_logprobs": (request(logprobs=True, top_logprobs=21), "top_logprobs must be at most 20"),
    "-1 top_logprobs": (request(logprobs=True, top_logprobs=-1), "top_logprobs must be at least 0"),
    "stream as text": (request(stream="yes"), "stream must be true or false"),
    "an unknown stream option": (
        request(stream=True, stream_options={"a": 1}),
        "key 'a' is not known: choose from include_",
    ),
    "two videos": (request(user(TEXT, CLIP, CLIP)), "holds 2 videos"),
    "a video and pictures": (request(user(TEXT, CLIP, PICTURE)), "a video and pictures"),
    "nothing to look at": (request(user(TEXT)), "holds no video"),
    "a text alone": (request({"role": "user", "content": "Who?"}), "holds no video"),
    "no text": (request(user(CLIP)), "has no text"),
    "no parts": (request(user()), "has no text"),
    "an empty text": (request(user(CLIP, {"type": "text", "text": " \n"})), "has no text"),
    "500 pictures": (request(user(TEXT, *[PICTURE] * 500)), "a message may hold 256 parts, got 501"),
    "an unknown part": (request(user(TEXT, {"type": "input_audio"})), "type must be one of text, image_url"),
    "a part without a type": (request(user(TEXT, {"text": "x"})), "type must be one of text, image_url"),
    "a part that is no object": (request(user("x")), "must be"),
    "a part with another key": (
        request(user(CLIP | {"fps": 3}, TEXT)),
        "key 'fps' is not known: choose from type, video_url",
    ),
    "a URL with another key": (
        request(user(TEXT, {"type": "video_url", "video_url": {"url": "clip:a", "fps": 3}})),
        "key 'fps' is not known: choose from url, detail",
    ),
    "a text that is none": (request(user(CLIP, {"type": "text", "text": 3})), "text.text must be text"),
    "a picture's URL that is none": (image(None), "must be text"),
    "a picture that is none": (request(user(TEXT, {"type": "image_url", "image_url": "data:x"})), "must be an object"),
    "a path": (video("/etc/passwd"), "paths are not opened"),
    "a file": (video("file:///etc/passwd"), "paths are not opened"),
    "a pipe": (video("pipe:0"), "paths are not opened"),
    "bare base64": (video("AAAA"), "must be a data: URL"),
    "a picture's clip": (image("clip:clip0"), "must be a data: URL of PNG, JPEG or WebP or a link"),
    "a page as a video": (video("data:text/html;base64,AAAA"), "but says that it is text/html"),
    "a picture as a video": (video("data:image/png;base64,AAAA"), "must be a video, but says that it is image/png"),
    "a video as a picture": (image("data:video/mp4;base64,AAAA"), "but says that it is video/mp4"),
    "a drawing": (image("data:image/svg+xml;base64,AAAA"), "but says that it is image/svg+xml"),
    "a GIF": (image("data:image/gif;base64,AAAA"), "but says that it is image/gif"),
    "a long text": (request(user(CLIP, {"type": "text", "text": "why " * 90_000})), "may hold 320000 characters"),
    "many brackets": (b'{"messages": ' + b"[" * 600_000, "commas and brackets"),
    "deep brackets": (b'{"messages": ' + b"[" * 100_000, "is not JSON"),
}


@pytest.mark.parametrize("name", list(BAD))
def test_what_cannot_be_asked_is_refused_in_one_sentence(name: str) -> None:
    content, reason = BAD[name]
    told = sentence(lambda: read(content))
    assert reason in told and len(told) < 300
    assert "passwd" not in told and "AAAA" not in told


MANY = {str(number): 1 for number in range(1000)}


@pytest.mark.parametrize(
    "content",
    [
        request() | MANY,
        request(stream_options=MANY),
        request(message() | MANY),
        request(user(TEXT, CLIP | MANY)),
        request(user(TEXT, {"type": "video_url", "video_url": {"url": "clip:a"} | MANY})),
    ],
)
def test_of_many_unknown_keys_the_first_alone_is_an_error(content: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"^key '0' is not known: choose from ") as raised:
        read(content)
    assert isinstance(raised.value.__context__, ValidationError) and raised.value.__context__.error_count() == 1
