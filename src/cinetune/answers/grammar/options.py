"""The wordings under which a reply may name an option: its text, other articles, numbers in words, places."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache

from cinetune.answers.folding import fold
from cinetune.answers.letters import of, readable, span
from cinetune.task.description import LETTERS

NUMBER_WORDS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)  # fmt: skip
NUMBER_OF = {word: str(number) for number, word in enumerate(NUMBER_WORDS)}
NUMBER_OF |= {
    "thirty": "30", "forty": "40", "fifty": "50", "sixty": "60", "seventy": "70", "eighty": "80", "ninety": "90",
}  # fmt: skip
IN_THE_OTHER_WAY = NUMBER_OF | {number: word for word, number in NUMBER_OF.items()}
ARTICLE = re.compile(r"\b(?:the|an?) (?=\S)")
LEADING_ARTICLE = re.compile(r"^(?:the|an?) ")
OWNERS = r"\b(?:his|her|its|their|my|our|your)"
OWNER = re.compile(rf"^{OWNERS} ")
ROMAN = ("i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x")
LABEL = re.compile(rf"^\(?(?:option )?([{span(LETTERS).lower()}]|10|[1-9]|{'|'.join(ROMAN)})[).:] ?(?=\S)")
SUBJECT = re.compile(r"^(?:because |to (?=\S+ \S))?(?:(?:he|she|they|it) (?:(?:is|are|was|were) |(?=\S+ \S+ \S)))?")
CONTRACTIONS = (
    (re.compile(r"\b(he|she|it|that|there|who) (?:is|has)\b"), r"\1's"),
    (re.compile(r"\b(they|we|you) are\b"), r"\1're"),
    (re.compile(r"^((?:the )?\w+) is\b"), r"\1's"),
    (re.compile(r"\b(he|she|it|that|there|who)'s\b"), r"\1 is"),
    (re.compile(r"\b(is|are|was|were|do|does|did|has|have|had|would|could) not\b"), r"\1n't"),
    (re.compile(r"\b(is|are|was|were|do|does|did|has|have|had|would|could)n't\b"), r"\1 not"),
    (re.compile(r"\b(?:cannot|can not)\b"), "can't"),
)
OF_THE_OPTIONS = re.compile(r"^(none|all|neither|both) of (?:the above|these)$")
THE_OPTIONS = (
    "the above", "these", "those", "the options", "these options", "the above options", "the given options",
    "the options above", "the choices", "these choices", "the answers", "these answers",
)  # fmt: skip
# A text may be named without these.
PREPOSITION = re.compile(r"^(in|on|at|inside|by|with|through) (?=\S)")


def option_texts(choices: Sequence[str]) -> tuple[str, ...]:
    """Each option in one form and lower case, without a label of its own ("B) blue")."""
    return _texts_and_labels(tuple(choices))[0]


def own_labels(choices: Sequence[str]) -> tuple[str, ...]:
    """The numbers that the options bear in their texts ("2) blue", "(ii) blue"); none where they bear none."""
    return _texts_and_labels(tuple(choices))[1]


@lru_cache(maxsize=16)
def _texts_and_labels(choices: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    texts = [" ".join(fold(choice).split()).lower() for choice in choices]
    labels = tuple(found[1] if (found := LABEL.match(text)) else "" for text in texts)
    numbers = (tuple(map(str, range(1, len(choices) + 1))), ROMAN[: len(choices)])
    if labels in (*numbers, tuple(of(choices).lower())):
        texts = [LABEL.sub("", text) for text in texts]
    return tuple(text.strip(" .!?\"'") for text in texts), labels if labels in numbers else ()


def is_number(word: str) -> bool:
    """Is it a number, in digits or as a word?"""
    return word.isdigit() or word.lower() in NUMBER_OF


def has_numbers(choices: Sequence[str]) -> bool:
    """Do options speak of numbers, so that "option 2" may mean the text "2"?"""
    words = {word for text in option_texts(choices) for word in re.findall(r"\w+", text)}
    return any(is_number(word) for word in words)


def wordings(choices: Sequence[str]) -> dict[str, set[str]]:
    """The letters by wording, exact texts first; a looser wording is kept only where it names one option."""
    texts = option_texts(choices)
    exact: dict[str, set[str]] = defaultdict(set)
    loose: dict[str, set[str]] = defaultdict(set)
    for letter, text in zip(LETTERS, texts, strict=False):
        exact[text].add(letter)
        for form in _loose_forms(text):
            loose[form].add(letter)
    found = dict(exact)
    for form, letters in loose.items():
        # An unlucky pair such as "the dog" and "a dog" is told apart by its article, or not at all.
        if form not in found:
            found[form] = letters
    # A text that is itself a letter of the alphabet's start cannot be told from the letter.
    unclear = rf"[{span(readable(choices)).lower()}]|\W+"
    return {form: letters for form, letters in found.items() if form and not re.fullmatch(unclear, form)}


def _loose_forms(text: str) -> set[str]:
    forms = {LEADING_ARTICLE.sub("", text), OWNER.sub("", text), without_articles(text), _other_numbers(text)}
    forms |= {contraction.sub(form, text) for contraction, form in CONTRACTIONS}
    forms |= {without_articles(OWNER.sub("", SUBJECT.sub("", form))) for form in set(forms)}
    if PREPOSITION.match(text):
        forms |= {without_preposition(text)}
    if OF_THE_OPTIONS.match(text):
        forms |= {OF_THE_OPTIONS.sub(rf"\1 of {options}", text) for options in THE_OPTIONS}
    forms |= {form.replace(sign, "") for form in {text, *forms} for sign in "'."}
    return forms - {text, ""}


def without_articles(text: str) -> str:
    """The text with no article anywhere; one at the very end stays."""
    return ARTICLE.sub("", text)


def without_preposition(text: str) -> str:
    """From "on the beach" and "at a beach" to "beach"."""
    return without_articles(PREPOSITION.sub("", text))


def _other_numbers(text: str) -> str:
    return " ".join(IN_THE_OTHER_WAY.get(word, word) for word in text.split(" "))


def longer_neighbours(wording: str, letters: set[str], choices: Sequence[str]) -> tuple[set[str], bool]:
    """The words with which other options' texts go on after this wording, and whether one adds words before it."""
    bare = without_articles(wording)
    others = [
        without_articles(text)
        for letter, text in zip(LETTERS, option_texts(choices), strict=False)
        if letter not in letters
    ]
    next_words = {text[len(bare) :].split()[0] for text in others if text.startswith(bare + " ")}
    return next_words, any(text.endswith(" " + bare) for text in others)
