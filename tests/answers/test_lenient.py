"""Model text in, letters and readable answers out: every wording that a fair reader can and cannot read."""

from __future__ import annotations

import time

import pytest

from builders.readings import RAMBLE, READINGS
from cinetune.answers.cleanup import CleanAnswer, clean
from cinetune.answers.lenient import is_abstention, parse_lenient
from cinetune.answers.strict import parse_strict
from cinetune.task.description import CINEPILE

pytestmark = pytest.mark.evaluation

CHOICES = ["The dog barks", "A man walks in", "She leaves the room", "Nothing happens", "They sing"]


@pytest.mark.parametrize(("text", "strict", "lenient"), READINGS, ids=lambda value: repr(value)[:40])
def test_each_wording_has_one_strict_and_one_lenient_reading(text, strict, lenient):
    assert parse_strict(text, CHOICES) == strict
    assert parse_lenient(text, CHOICES) == lenient


@pytest.mark.parametrize("text", [reading[0] for reading in READINGS], ids=lambda value: repr(value)[:40])
def test_a_clean_choice_is_the_option_that_a_reader_would_take_and_nothing_else(text):
    letter = parse_lenient(text, CHOICES)
    expected = CleanAnswer(CHOICES[CINEPILE.letters.index(letter)], letter) if letter else CleanAnswer("", None)
    assert clean(text, CHOICES) == expected


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("Option B", "B"),
        ("option a is correct", "A"),
        ("My answer: [E]", "E"),
        (r"$\boxed{D}$", "D"),
        ("C, not A", "C"),
        ("not A but C", "C"),
        ("It is C rather than A.", "C"),
        ("A is wrong, B is wrong, so it must be C.", "C"),
        ("The wrong answer is A; the right one is B", "B"),
        ("Options A, B and C are wrong, so D", "D"),
        ("I don't think it is A. I'd go with E.", "E"),
        ("It can't be anything other than B", "B"),
        ("B because A does not fit", "B"),
        ("Is it A? No, it is C.", "C"),
        ("The answer is A or B. I will pick B.", "B"),
        ("A because he walks", "A"),
        ("B B B B B", "B"),
        ("The answer is: A man walks in", "B"),
        ("Not the dog barks; they sing", "E"),
        ("In the end they sing and all is well", "E"),
        ("C. She leaves the room.", "C"),
        ("B</s>", "B"),
        ("B USER: And now? ASSISTANT: D", "B"),
        ("USER: A or B? ASSISTANT: C</s>", "C"),
        ("- A) The dog barks\n- B) A man walks in\n- C) She leaves the room\nAnswer: C", "C"),
    ],
)
def test_a_fair_reader_understands(text, letter):
    assert parse_lenient(text, CHOICES) == letter


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("A woman stands there", None),
        ("The answer is A man", None),
        ("it is a man", None),
        ("A", "A"),
        ("a.", "A"),
    ],
)
def test_a_is_an_article_before_a_noun_and_an_option_alone(text, letter):
    assert parse_lenient(text, CHOICES) == letter


@pytest.mark.parametrize(
    "text",
    [
        "Vitamin C is mentioned",
        "I met Agent B there",
        "E.T. phones home",
        "C. S. Lewis wrote it",
        "D'Artagnan fights",
        "B is not correct",
        "Definitely not B",
        "A and C are both possible",
        "A, B, C",
        "A. B. C. D. E.",
        "B) The dog barks",
        "The dog barks and they sing",
        "- A) The dog barks\n- B) A man walks in\n- C) She leaves the room",
    ],
)
def test_nothing_is_guessed_where_no_single_option_is_meant(text):
    assert parse_lenient(text, CHOICES) is None


def test_a_letter_that_the_question_does_not_have_is_no_answer():
    four = CHOICES[:4]
    for text in ("E", "Answer: E", "The answer is E."):
        assert parse_strict(text, four) is None
        assert parse_lenient(text, four) is None
    assert parse_lenient("E, no, B", four) == "B"


def test_lenient_does_not_choose_between_options_that_share_a_text():
    assert parse_lenient("yes", ["yes", "no", "Yes", "maybe", "never"]) is None


def test_an_article_tells_two_options_apart():
    assert parse_lenient("It was a dog.", ["the dog", "a dog", "a cat"]) == "B"


@pytest.mark.parametrize("text", ["None", "None of the above", "A or B", "AB", "I cannot tell", "A, B, C"])
def test_declining_to_choose_is_an_abstention(text):
    assert is_abstention(text, CHOICES)


@pytest.mark.parametrize("text", ["", " ", "B", "The answer is not A, it is C", "zebra", RAMBLE])
def test_silence_rambling_and_an_answer_are_not_abstentions(text):
    assert not is_abstention(text, CHOICES)


def test_none_of_the_above_is_an_answer_where_it_is_an_option():
    assert parse_lenient("None of the above.", ["a cat", "a dog", "None of the above"]) == "C"


@pytest.mark.parametrize(
    "unit",
    [
        "word ",
        "A ",
        "A\n",
        "B. ",
        "A) ",
        "A, ",
        "(",
        "*",
        ",",
        "Answer: ",
        "The dog ",
        "the answer is not A, ",
        "Hold on. ",
        "if A, B otherwise ",
        "a knife and then ",
    ],
)
def test_reading_takes_time_in_proportion_to_length(unit):
    # A factor of 4 in length may cost 4 in time, never 16; the slack is for a busy machine.
    def seconds(text: str) -> float:
        times = []
        for _ in range(3):
            start = time.perf_counter()
            parse_strict(text, CHOICES)
            parse_lenient(text, CHOICES)
            clean(text, None)
            times.append(time.perf_counter() - start)
        return min(times)

    short, long = unit * (2_500 // len(unit)), unit * (10_000 // len(unit))
    assert seconds(long) < 10 * seconds(short) + 0.05
