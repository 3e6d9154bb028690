"""The strict parser credits what the published rule credits."""

from __future__ import annotations

import itertools

import pytest

from cinetune.answers.strict import parse_strict
from cinetune.task.description import CINEPILE

pytestmark = pytest.mark.evaluation


CHOICES = ["The dog barks", "A man walks in", "She leaves the room", "Nothing happens", "They sing"]


def is_right_as_published(reply: str, gold: str, gold_text: str) -> bool:
    """The published protocol in plain steps, written apart from the parser under test."""
    reply = reply.replace("*", "").strip().lower()
    if reply in list("abcde"):
        return reply == gold.lower()
    for place in range(len(reply)):
        if reply.startswith("answer:", place):
            after = reply[place + len("answer:") :].lstrip()
            if after[:1] and after[0] in "abcde":
                words = after[1:].removeprefix(")").removeprefix(".").lstrip().split("\n")[0].strip()
                return after[0] == gold.lower() and words in ("", gold_text.lower())
    return reply == gold_text.lower()


def test_strict_credits_exactly_what_the_published_rule_credits():
    heads = [
        "",
        "Answer: ",
        "answer:\n",
        "**Answer:** ",
        "I say. Answer: ",
        "The answer is ",
        "Answer: Answer: ",
    ]
    letters = ["", *"ABCDEbX", "(B)"]
    marks = ["", ")", ".", ").", ".)", "\n", ") \n\n"]
    tails = ["", *CHOICES, "a man WALKS in ", "A man walks in.", "the", "*A man* walks in", "Answer: C"]
    right = 0
    for reply in map("".join, itertools.product(heads, letters, marks, tails)):
        for index, gold in enumerate(CINEPILE.letters):
            expected = is_right_as_published(reply, gold, CHOICES[index])
            assert (parse_strict(reply, CHOICES, index) == gold) == expected, (reply, gold)
            assert (parse_strict(reply, CHOICES) == gold) == expected, (reply, gold)
            right += expected
    assert right > 100


def test_strict_prefers_the_gold_option_where_two_share_a_text():
    twins = ["yes", "no", "Yes", "maybe", "never"]
    assert parse_strict("yes", twins, gold_index=2) == "C"
    assert parse_strict("yes", twins, gold_index=3) == "A"
    assert parse_strict("yes", twins) == "A"
