"""What a chat completion's request asks: one user's message with a question, and a video or its frames.

Its shape is judged here and its values where a row's are (`requests.row`). What the model cannot do is refused and
never overlooked; parameters that would change nothing of its answer are taken. No error shows a value of a message.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, StrictBool, StrictInt, StrictStr, ValidationError

from cinetune.errors import InputError
from cinetune.serving.requests import bodies
from cinetune.serving.requests.bodies import Exact
from cinetune.serving.requests.form import MAX_NEW_TOKENS, Options, Row
from cinetune.serving.sources import CLIP, LINK
from cinetune.task import messages

# A question, its options and subtitles of the greatest lengths that a row may have.
MAX_MESSAGE_CHARS = 320_000
MAX_PARTS, MAX_TOP_LOGPROBS = 256, 20
# Of a request; each changes nothing of the likeliest words.
WITHOUT_EFFECT = ("seed", "user", "metadata", "top_p")
# The values that say what the model does anyhow, and null.
FIXED: dict[str, tuple[Any, ...]] = {
    "temperature": (0,), "n": (1,), "presence_penalty": (0,), "frequency_penalty": (0,), "logit_bias": ({},),
    "stop": ([], ""), "response_format": ({"type": "text"},), "modalities": (["text"],), "store": (False,),
    "service_tier": ("auto", "default"), "tools": ([],), "functions": ([],), "tool_choice": ("none", "auto"),
}  # fmt: skip
INSTEAD = {
    "temperature": "temperature must be 0: the model answers with its likeliest words",
    "n": "n must be 1: the model has one answer to a question",
    "tools": "tools cannot be called by this model: leave them out",
}
MEDIA = re.compile(r"data:([\w.+-]{1,64}/[\w.+-]{1,64})[;,]", re.IGNORECASE)
# Of what decodes them, whatever their bytes say.
VIDEO_TYPES, PICTURE_TYPES = r"video/.*|application/octet-stream", r"image/(?:png|jpe?g|webp)"


class _Link(Exact):
    url: StrictStr
    # Every picture is shown at the size that the model was trained on.
    detail: StrictStr | None = None


class _Text(Exact):
    type: Literal["text"]
    text: StrictStr


class _Picture(Exact):
    type: Literal["image_url"]
    image_url: _Link


class _Video(Exact):
    type: Literal["video_url"]
    video_url: _Link


Part = Annotated[_Text | _Picture | _Video, Field(discriminator="type")]
PARTS = ("text", "image_url", "video_url")


class _Message(Exact):
    role: Literal["user"]
    content: Annotated[list[Part], Field(max_length=MAX_PARTS)]
    name: StrictStr | None = None


class _StreamOptions(Exact):
    include_usage: StrictBool | None = None


class _Request(Exact):
    model: StrictStr
    messages: list[_Message]
    max_tokens: StrictInt | None = None
    max_completion_tokens: StrictInt | None = None
    logprobs: StrictBool | None = None
    top_logprobs: Annotated[StrictInt, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    stream: StrictBool | None = None
    stream_options: _StreamOptions | None = None


@dataclass(frozen=True)
class Chat:
    """What is asked, of which model, and how the response is to look.

    row: as at /invocations; max_tokens: None for the version's own; top_logprobs: of how many letters, None for no
    log-probabilities.
    """

    model: str
    row: Row
    max_tokens: int | None
    top_logprobs: int | None
    is_streamed: bool
    shows_usage: bool

    def options(self, defaults: Options) -> Options:
        tokens = defaults.max_new_tokens if self.max_tokens is None else min(self.max_tokens, MAX_NEW_TOKENS)
        return Options(tokens, "lenient", defaults.num_frames)


def read(body: bytes) -> Chat:
    """Raises InputError for what cannot be asked so."""
    content = bodies.read(body)
    if not isinstance(content, dict):
        raise InputError("the request must be a JSON object with model and messages.")
    _check_fixed(content)
    given = {name: value for name, value in content.items() if name not in FIXED and name not in WITHOUT_EFFECT}
    _check_messages(given.get("messages"))
    given["messages"] = [_with_parts(message) for message in given["messages"]]
    try:
        request = _Request.model_validate(given)
    except ValidationError as error:
        raise InputError(_sentence(error)) from None
    top = request.top_logprobs
    if top is not None and not request.logprobs:
        raise InputError("top_logprobs needs logprobs to be true.")
    options = request.stream_options or _StreamOptions()
    return Chat(
        request.model,
        _row(request.messages[0]),
        _max_tokens(request),
        (top or 0) if request.logprobs else None,
        bool(request.stream),
        bool(options.include_usage),
    )


def _check_fixed(content: Mapping[str, Any]) -> None:
    for name, allowed in FIXED.items():
        value = content.get(name)
        # True counts as 1, and False as 0.
        if value is None or any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in allowed):
            continue
        raise InputError(f"{INSTEAD.get(name, f'{name} is not supported: leave it out')}.")


def _check_messages(messages: Any) -> None:
    if not isinstance(messages, list) or not messages:
        raise InputError("messages must be a list with the user's message.")
    for number, message in enumerate(messages):
        if not isinstance(message, dict):
            raise InputError(f"messages.{number} must be an object.")
        role = message.get("role")
        if role in ("system", "developer"):
            raise InputError(
                f"messages.{number} is a {role} message, but the model has one instruction of its own that it was "
                "trained on: leave it out, and put what the question needs into the user's text."
            )
        if role != "user":
            shown = repr(bodies.shorten(role)) if isinstance(role, str) else "none"
            raise InputError(f"messages.{number}.role must be user, got {shown}: send the question alone.")
    if len(messages) > 1:
        raise InputError(f"messages must hold one message, got {len(messages)}: ask one question a request.")


def _with_parts(message: dict[str, Any]) -> dict[str, Any]:
    """A message whose content is a list of parts: a text alone may stand for one."""
    content = message.get("content")
    return message | {"content": [{"type": "text", "text": content}]} if isinstance(content, str) else message


def _max_tokens(request: _Request) -> int | None:
    tokens = request.max_completion_tokens
    if tokens is None:
        tokens = request.max_tokens
    elif request.max_tokens is not None:
        raise InputError("max_tokens and max_completion_tokens are one and the same: give one of them.")
    if tokens is not None and tokens < 1:
        raise InputError("max_tokens must be at least 1.")
    return tokens


def _row(message: _Message) -> Row:
    texts = [part.text for part in message.content if isinstance(part, _Text)]
    if sum(map(len, texts)) > MAX_MESSAGE_CHARS:
        raise InputError(f"the message's text may hold {MAX_MESSAGE_CHARS} characters: shorten it.")
    if not any(text.strip() for text in texts):
        raise InputError("the message has no text: ask a question.")
    asked = messages.read("\n".join(texts))
    choices = None if asked.choices is None else list(asked.choices)
    return _seen(message) | {"question": asked.question, "choices": choices, "subtitles": asked.subtitles}


def _seen(message: _Message) -> Row:
    videos = [part.video_url.url for part in message.content if isinstance(part, _Video)]
    pictures = [part.image_url.url for part in message.content if isinstance(part, _Picture)]
    if len(videos) > 1:
        raise InputError(f"the message holds {len(videos)} videos: ask about one.")
    if videos and pictures:
        raise InputError("the message holds a video and pictures: send the video, or its frames as pictures.")
    if not videos and not pictures:
        raise InputError("the message holds no video: add a video_url, or its frames as image_url parts.")
    for url in videos:
        _check_url("video_url", url, VIDEO_TYPES, "a video")
    for url in pictures:
        _check_url("image_url", url, PICTURE_TYPES, "PNG, JPEG or WebP")
    return {"video": videos[0]} if videos else {"images": pictures}


def _check_url(name: str, url: str, types: str, wanted: str) -> None:
    if LINK.match(url) or (name == "video_url" and url.startswith(CLIP)):
        return
    media = MEDIA.match(url)
    if media is None:
        also = f", {CLIP}<clip_id>" if name == "video_url" else ""
        raise InputError(f"{name}.url must be a data: URL of {wanted}{also} or a link: paths are not opened.")
    if not re.fullmatch(types, media[1], re.IGNORECASE):
        raise InputError(f"{name}.url must be {wanted}, but says that it is {bodies.shorten(media[1])}.")


def _sentence(error: ValidationError) -> str:
    first = bodies.first_of(error)
    problem, loc = first["type"], first["loc"]
    if problem in ("union_tag_invalid", "union_tag_not_found"):
        return f"{'.'.join(map(str, loc))}.type must be one of {', '.join(PARTS)}."
    if problem == "too_long":
        return f"a message may hold {MAX_PARTS} parts, got {first['ctx']['actual_length']}."
    return bodies.sentence(first)
