"""Every number of options from two to ten has its own letters, for every parser."""

from __future__ import annotations

import pytest

from cinetune.answers.cleanup import clean
from cinetune.answers.lenient import is_abstention, parse_lenient
from cinetune.answers.strict import most_probable, parse_strict
from cinetune.task.description import LETTERS

pytestmark = pytest.mark.evaluation

TEXTS = (
    "a red coat", "in the harbour", "a storm", "people meet", "by night", "an old map", "the guide", "anger",
    "to win the race", "nothing more",
)  # fmt: skip
WAYS = (
    "{0}",
    "({0})",
    "{0}.",
    "**{0}**",
    "The answer is {0}.",
    "Answer: {0}",
    "Option {0}",
    "I choose {0}.",
    "{0}) {1}",
)


@pytest.mark.parametrize("count", range(2, 11))
@pytest.mark.parametrize("way", WAYS)
def test_each_letter_is_read_where_a_question_has_it_and_no_other_is(count: int, way: str) -> None:
    choices = TEXTS[:count]
    for letter, text in zip(LETTERS, TEXTS, strict=True):
        reply = way.format(letter, text)
        expected = letter if letter in LETTERS[:count] else None
        assert parse_lenient(reply, choices) == expected, reply
        assert clean(reply, choices).choice == expected


@pytest.mark.parametrize("count", range(2, 11))
def test_the_published_form_and_an_options_text_are_strict_answers(count: int) -> None:
    choices = TEXTS[:count]
    for letter, text in zip(LETTERS[:count], choices, strict=True):
        for reply in (letter, letter.lower(), f"Answer: {letter}", f"Answer: {letter}) {text}", text.upper()):
            assert parse_strict(reply, choices) == letter
    for letter in LETTERS[count:]:
        assert parse_strict(letter, choices) is None and parse_strict(f"Answer: {letter}", choices) is None


@pytest.mark.parametrize("place", range(1, 11))
def test_options_are_named_by_place_as_far_as_there_are_some(place: int) -> None:
    ordinals = ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"]
    for reply in (f"The {ordinals[place - 1]} option.", f"Option {place}."):
        assert parse_lenient(reply, TEXTS) == LETTERS[place - 1]
        assert parse_lenient(reply, TEXTS[:3]) == (LETTERS[place - 1] if place <= 3 else None)


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("I think it is B.", "B"),
        ("I am not sure.", None),
        ("I", "I"),
        ("The answer is I.", "I"),
        ("I would say (I).", "I"),
        ("It is J, I believe.", "J"),
    ],
)
def test_the_ninth_letter_is_no_pronoun(reply: str, letter: str | None) -> None:
    assert parse_lenient(reply, TEXTS) == letter


def test_several_letters_are_none_and_an_abstention() -> None:
    assert parse_lenient("ABC", TEXTS[:3]) is None and is_abstention("ABC", TEXTS[:3])
    assert is_abstention("HIJ", TEXTS) and not is_abstention("HIJ", TEXTS[:3])


def test_options_with_numbers_of_their_own_are_named_by_these() -> None:
    choices = [f"{number}) {text}" for number, text in enumerate(TEXTS, 1)]
    assert parse_lenient("10) nothing more", choices) == "J" and parse_lenient("2)", choices) == "B"


def test_the_likeliest_of_three_is_one_of_three() -> None:
    assert most_probable((0.2, 0.3, 0.5)) == "C"
