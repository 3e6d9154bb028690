"""What a server sends is read without trust: words, refusals, log-probabilities and counts of any shape."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from builders.judged import COMPLETION, completion
from cinetune.inference.server import reply
from cinetune.inference.server.reply import NoCompletion

pytestmark = pytest.mark.evaluation


def read(content: Any) -> reply.ServerReply:
    return reply.read(content if isinstance(content, bytes) else json.dumps(content).encode())


def with_tokens(*tokens: Any) -> dict[str, Any]:
    return completion("B", logprobs={"content": [{"token": "B", "logprob": -1.0, "top_logprobs": list(tokens)}]})


def token(text: Any, logprob: Any) -> dict[str, Any]:
    return {"token": text, "logprob": logprob}


@pytest.mark.parametrize(
    "content",
    [
        b"", b" \n", b"{", b"<html></html>", b"[]", b"null", b"3", b"[" * 100_000, b"\xff\xfe", b"1" * 5000, {},
        {"choices": []}, {"choices": {}}, {"choices": [3]}, {"choices": [{}]}, {"choices": [{"message": "B"}]},
        {"error": {"message": "no"}},
    ],
)  # fmt: skip
def test_what_is_no_completion_is_told_in_a_word(content: Any) -> None:
    with pytest.raises(NoCompletion) as caught:
        read(content)
    assert str(caught.value) in ("nothing", "no JSON", "no completion")


@pytest.mark.parametrize(
    ("message", "kind", "raw"),
    [
        ({"content": "B"}, "answered", "B"),
        ({"content": [{"type": "text", "text": "B"}, {"type": "x"}, 3, {"text": ")"}]}, "answered", "B)"),
        ({"content": None}, "empty", ""),
        ({}, "empty", ""),
        ({"content": 3}, "empty", ""),
        ({"content": " \n"}, "empty", ""),
        ({"content": None, "tool_calls": [{"id": "a"}]}, "empty", ""),
        ({"content": None, "refusal": "I will not."}, "refused", "I will not."),
        ({"content": "", "refusal": ""}, "empty", ""),
        ({"content": "half \ud83d"}, "answered", "half ?"),
        ({"content": "x" * 200_000}, "answered", "x" * 100_000),
    ],
)
def test_words_are_what_was_said(message: dict[str, Any], kind: str, raw: str) -> None:
    found = read(completion(message=message))
    assert (found.kind, found.raw) == (kind, raw)


def test_a_filter_is_a_refusal() -> None:
    assert read(completion("", finish_reason="content_filter")).kind == "refused"


def test_letters_are_added_up_over_their_tokens_and_others_left_out() -> None:
    tokens = [token("B", math.log(0.5)), token(" B", math.log(0.1)), token("A", math.log(0.2)), token("Z", -0.1)]
    found = read(with_tokens(*tokens, token("BA", -1.0), token("b", -1.0)))
    shares, mass = found.shares(5)
    assert mass == pytest.approx(0.8) and shares == pytest.approx((0.25, 0.75, 0, 0, 0))
    assert sum(shares) == pytest.approx(1)


@pytest.mark.parametrize(
    "tokens",
    [
        [], [token("The", -0.1)], [token("B", "-1")], [token("B", None)], [token("B", True)],
        [token("B", float("nan"))], [token("B", 3.0)], [token(3, -1.0)], [3], [None], [token("E", -1.0)],
    ],
)  # fmt: skip
def test_log_probabilities_that_say_nothing_of_a_letter_give_no_answer(tokens: list[Any]) -> None:
    content = with_tokens(*tokens) if tokens else completion("B", logprobs=None)
    shares, mass = read(content).shares(4)
    assert len(shares) == 4 and all(map(math.isnan, (*shares, mass)))


@pytest.mark.parametrize("logprob", [-1e308, float("-inf"), -9999.0])
def test_letters_that_are_hardly_possible_are_compared_all_the_same(logprob: float) -> None:
    shares, mass = read(with_tokens(token("A", logprob), token("B", logprob))).shares(3)
    assert shares == (0.5, 0.5, 0.0) and mass == 0


@pytest.mark.parametrize("logprobs", [3, [], {}, {"content": None}, {"content": []}, {"content": [3]}])
def test_other_shapes_of_log_probabilities_are_none(logprobs: Any) -> None:
    assert read(completion("B", logprobs=logprobs)).letters == {}


@pytest.mark.parametrize(
    "usage", [None, 3, [], {}, {"prompt_tokens": "9"}, {"prompt_tokens": -1}, {"prompt_tokens": 1e300}, {"a": 1}]
)
def test_counts_that_are_none_are_no_tokens(usage: Any) -> None:
    found = read(COMPLETION | {"usage": usage})
    assert (found.prompt_tokens, found.completion_tokens) == (0, 0)


def test_a_reply_goes_through_the_journal_unchanged() -> None:
    found = read(COMPLETION)
    assert reply.ServerReply(**json.loads(json.dumps(found.to_dict()))) == found
