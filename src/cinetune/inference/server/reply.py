"""What a server's response to one question is: words, a refusal, nothing; or no completion at all."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from cinetune.task.description import LETTERS

MAX_REPLY_CHARS = 100_000
ANSWERED, EMPTY, REFUSED, REJECTED = "answered", "empty", "refused", "rejected"
KINDS = (ANSWERED, EMPTY, REFUSED, REJECTED)


class NoCompletion(ValueError):
    """A body that is no chat completion, in a word or two."""


@dataclass(frozen=True)
class ServerReply:
    """`kind`: words, none, a refusal of the model's, or a request that the server rejected.

    letters: log-probabilities of option letters where the answer begins, as far as they were told; ended: the server's
    reason for the end of the words; failures: how often it had to be asked again, by reason.
    """

    kind: str
    raw: str
    letters: dict[str, float] = field(default_factory=dict)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    ended: str = ""
    model: str = ""
    fingerprint: str = ""
    failures: dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def shares(self, num_choices: int) -> tuple[tuple[float, ...], float]:
        """The options' shares of probability and that of all letters together; NaN where the server told none.

        A letter that is not among the likeliest tokens that were told counts as impossible.
        """
        known = {letter: self.letters[letter] for letter in LETTERS[:num_choices] if letter in self.letters}
        if not known:
            return (math.nan,) * num_choices, math.nan
        highest = max(known.values())
        weights = [math.exp(known[letter] - highest) if letter in known else 0.0 for letter in LETTERS[:num_choices]]
        mass = min(1.0, sum(math.exp(logprob) for logprob in known.values()))
        return tuple(weight / sum(weights) for weight in weights), mass


def read(body: bytes) -> ServerReply:
    """Raises NoCompletion for what is none."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        raise NoCompletion("no JSON" if body.strip() else "nothing") from None
    choices = content.get("choices") if isinstance(content, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict) or not isinstance(message := choice.get("message"), dict):
        raise NoCompletion("no completion")
    words, refusal = _words(message.get("content")), _words(message.get("refusal"))
    ended = _text(choice, "finish_reason")
    is_refused = bool(refusal.strip()) or ended == "content_filter"
    kind = REFUSED if is_refused else ANSWERED if words.strip() else EMPTY
    usage = content.get("usage")
    return ServerReply(
        kind,
        words if words.strip() else refusal,
        _letters(choice.get("logprobs")),
        _count(usage, "prompt_tokens"),
        _count(usage, "completion_tokens"),
        ended,
        _text(content, "model"),
        _text(content, "system_fingerprint"),
    )


def _words(content: Any) -> str:
    """Text, or the texts of a list of parts. Half of a surrogate pair could not be saved."""
    if isinstance(content, list):
        content = "".join(part["text"] for part in content if isinstance(part, dict) and _text(part, "text"))
    return content[:MAX_REPLY_CHARS].encode("utf-8", "replace").decode() if isinstance(content, str) else ""


def _text(content: Mapping[str, Any], name: str) -> str:
    value = content.get(name)
    return value[:MAX_REPLY_CHARS].encode("utf-8", "replace").decode() if isinstance(value, str) else ""


def _count(usage: Any, name: str) -> int:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) and 0 <= value < 2**53 else 0


def _letters(logprobs: Any) -> dict[str, float]:
    """Log-probabilities of the tokens that are an option's letter, at the first token of the reply.

    A letter may be several tokens, with a space before it or without: these are added up.
    """
    tokens = logprobs.get("content") if isinstance(logprobs, dict) else None
    first = tokens[0] if isinstance(tokens, list) and tokens else None
    if not isinstance(first, dict):
        return {}
    listed = first.get("top_logprobs")
    found: dict[str, float] = {}
    for item in listed if isinstance(listed, list) and listed else [first]:
        token, logprob = (item.get("token"), item.get("logprob")) if isinstance(item, dict) else (None, None)
        if not isinstance(token, str) or isinstance(logprob, bool) or not isinstance(logprob, int | float):
            continue
        letter = token.strip()
        if len(letter) == 1 and letter in LETTERS and not math.isnan(logprob) and logprob <= 1e-3:
            found[letter] = float(logprob) if letter not in found else _added(found[letter], float(logprob))
    return {letter: max(logprob, -1e6) for letter, logprob in found.items()}


def _added(one: float, other: float) -> float:
    high, low = max(one, other), min(one, other)
    return high + math.log1p(math.exp(low - high)) if math.isfinite(high) else high
