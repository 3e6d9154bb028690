"""Requests in OpenAI's chat protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from builders.serving import CHOICES
from cinetune.task import messages

CLIP = {"type": "video_url", "video_url": {"url": "clip:clip0"}}


def message(
    question: str = "Where are they?",
    choices: Sequence[str] | None = tuple(CHOICES),
    subtitles: str = "Look.",
    media: Sequence[dict[str, Any]] = (CLIP,),
) -> dict[str, Any]:
    """A user's message as this project writes it."""
    before, after = messages.write(subtitles, question, choices)
    return {"role": "user", "content": [{"type": "text", "text": before}, *media, {"type": "text", "text": after}]}


def request(sent: dict[str, Any] | None = None, subtitles: str = "Look.", **more: Any) -> dict[str, Any]:
    return {"model": "clips", "messages": [sent or message(subtitles=subtitles)]} | more
