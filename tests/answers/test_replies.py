"""A set of replies with a careful reader's verdicts: the lenient parser agrees and never raises."""

from __future__ import annotations

import itertools
import random
import time

import pytest

from builders import replies
from cinetune.answers.cleanup import clean
from cinetune.answers.lenient import is_abstention, parse_lenient
from cinetune.task.description import CINEPILE

pytestmark = pytest.mark.evaluation

PIECES = (
    *(
        "A",
        "B",
        "C",
        "D",
        "E",
        "F",
        "a",
        "b",
        "e",
        "I",
        " ",
        " ",
        " ",
        " ",
        "\n",
        ".",
        ",",
        ":",
        ";",
        "?",
        "!",
        "-",
        "->",
        ">",
    ),
    *(
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        '"',
        "'",
        "*",
        "$",
        "\\boxed",
        "§",
        "<think>",
        "</think>",
        "<answer>",
        "USER:",
        "ASSISTANT:",
    ),
    *(
        "answer",
        "Answer:",
        "the",
        "is",
        "not",
        "no",
        "wait",
        "option",
        "option 2",
        "the third option",
        "the last one",
        "1",
    ),
    *(
        "2",
        "two",
        "or",
        "and",
        "between",
        "than",
        "over",
        "correct",
        "wrong",
        "red",
        "the man",
        "in",
        "on the beach",
        "but",
    ),
    *(
        "答えは",
        "です",
        "é",
        "Ж",
        "ß",
        "İ",
        "ı",
        "(ii)",
        "number 2",
        "her",
        "if",
        "otherwise",
        "第二个选项",
        "두 번째",
        "उत्तर",
        "ﬁ",
        "\u0301",
        "\u200d",
        "\ud800",
        "\x00",
        "🙂",
        "✓",
        "✗",
        "None",
        "of the above",
    ),
)
CHOICES = (
    *(replies.BEACH, replies.RED, replies.TWO, replies.MAN, replies.LABELLED, replies.THREE, ("",), ("a", "b"), ()),
    *(
        ("(i) a dream", "(ii) a lie"),
        ("her ring", "his ring", "the rings"),
        ("(", "[x", "*", "\\", "."),
        ("§", "\n", "a\n b", "the", "the the"),
        ("1. x", "2. y"),
        ("A", "B", "C", "D", "E"),
    ),
)


def test_the_parser_reads_what_a_careful_reader_reads():
    read = [(reply, choices, verdict, parse_lenient(reply, choices)) for reply, choices, verdict in replies.REPLIES]
    assert [case for case in read if case[2] != case[3]] == []


def test_what_is_not_understood_names_nothing():
    assert {parse_lenient(reply, choices) for reply, choices, _ in replies.STILL_MISSED} == {None}


def test_any_text_gives_a_letter_of_the_question_or_none():
    rng = random.Random(0)
    for _ in range(3_000):
        text = "".join(rng.choice(PIECES) + rng.choice(("", " ")) for _ in range(rng.randrange(25)))
        choices = rng.choice(CHOICES)
        letter = parse_lenient(text, choices)
        assert letter is None or letter in CINEPILE.letters[: len(choices)]
        assert is_abstention(text, choices) in ((False,) if letter else (False, True))
        assert clean(text, choices).choice == letter


@pytest.mark.parametrize(("letter", "other"), itertools.permutations("ABCDE", 2))
def test_the_letter_of_an_explanation_is_not_the_answer(letter, other):
    for reply in (
        f"Answer: {letter}\nReasoning: {other} was shown later.",
        f"The answer is {letter}. Note: {other} is close.",
        f"My choice is {letter}.\nRunner-up: {other}",
        f"**Answer:** {letter} (Distractor: {other})",
        f"Correct: {letter}. Tempting: {other}.",
    ):
        assert parse_lenient(reply, replies.BEACH) == letter
    for denied in (
        "no way it is {}",
        "{}? Unlikely.",
        "I doubt that it is {}.",
        "{} fails",
        "It can't be {}",
        "not {}",
    ):
        assert parse_lenient(denied.format(other), replies.BEACH) is None
        assert parse_lenient(f"{denied.format(other)}\nAnswer: {letter}", replies.BEACH) == letter


@pytest.mark.parametrize(
    "unit", ["the ", "is ", "no, ", "A and ", "A: ", "A? ", "option ", "answer is ", "on the ", "wait ", "2 "]
)
def test_a_reply_of_one_repeated_word_is_read_in_a_moment(unit):
    start = time.perf_counter()
    parse_lenient(unit * (10_000 // len(unit)), replies.BEACH)
    assert time.perf_counter() - start < 5
