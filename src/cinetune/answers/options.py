"""The wordings under which a reply may name an option: its text, other articles, numbers in words, places."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

from cinetune.answers.folding import fold
from cinetune.answers.letters import of, readable, span
from cinetune.task.description import LETTERS

NUMBER_WORDS = (
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
)
ARTICLE = re.compile(r"\b(?:the|an?) (?=\S)")
LEADING_ARTICLE = re.compile(r"^(?:the|an?) ")
LABEL = re.compile(rf"^\(?(?:option )?([{span(LETTERS).lower()}]|10|[1-9])[).:] ?(?=\S)")
SUBJECT = re.compile(r"^(?:because )?(?:(?:he|she|they|it) )?(?=\S+ \S+ \S)")
CONTRACTIONS = (
    (re.compile(r"\b(he|she|it|that|there|who) (?:is|has)\b"), r"\1's"),
    (re.compile(r"\b(they|we|you) are\b"), r"\1're"),
    (re.compile(r"\b(he|she|it|that|there|who)'s\b"), r"\1 is"),
    (re.compile(r"\b(is|are|was|were|do|does|did|has|have|had|would|could) not\b"), r"\1n't"),
    (re.compile(r"\b(is|are|was|were|do|does|did|has|have|had|would|could)n't\b"), r"\1 not"),
    (re.compile(r"\b(?:cannot|can not)\b"), "can't"),
)
# These three say "at this place" of one place or another; any other preposition says something else.
PLACE = re.compile(r"^(?:in|on|at) (?=\S)")


def option_texts(choices: Sequence[str]) -> list[str]:
    """Each option in one form and lower case, without a label of its own ("B) blue")."""
    texts = _folded(choices)
    if _labels(texts) in (list(of(choices).lower()), _numbers(choices)):
        texts = [LABEL.sub("", text) for text in texts]
    return [text.strip(" .!?\"'") for text in texts]


def are_numbered(choices: Sequence[str]) -> bool:
    """Do the options bring numbers of their own ("2) blue")?"""
    return _labels(_folded(choices)) == _numbers(choices)


def _folded(choices: Sequence[str]) -> list[str]:
    return [" ".join(fold(choice).split()).lower() for choice in choices]


def _labels(texts: Sequence[str]) -> list[str]:
    return [found[1] if (found := LABEL.match(text)) else "" for text in texts]


def _numbers(choices: Sequence[str]) -> list[str]:
    return [str(number) for number in range(1, len(choices) + 1)]


def is_number(word: str) -> bool:
    """Is it a number, in digits or as a word?"""
    return word.isdigit() or word.lower() in NUMBER_WORDS


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
    forms = {LEADING_ARTICLE.sub("", text), without_articles(text), _other_numbers(text)}
    forms |= {contraction.sub(form, text) for contraction, form in CONTRACTIONS}
    forms |= {without_articles(SUBJECT.sub("", form)) for form in set(forms)}
    if PLACE.match(text):
        forms |= {core_of_place(text)}
    return forms - {text, ""}


def without_articles(text: str) -> str:
    """The text with no article anywhere; one at the very end stays."""
    return ARTICLE.sub("", text)


def core_of_place(text: str) -> str:
    """From "on the beach" and "at a beach" to "beach"."""
    return without_articles(PLACE.sub("", text))


def _other_numbers(text: str) -> str:
    words = []
    for word in text.split(" "):
        if word in NUMBER_WORDS:
            word = str(NUMBER_WORDS.index(word))
        elif word.isascii() and word.isdigit() and int(word[:3]) < len(NUMBER_WORDS) and len(word) < 3:
            word = NUMBER_WORDS[int(word)]
        words.append(word)
    return " ".join(words)


def longer_neighbours(wording: str, letters: set[str], choices: Sequence[str]) -> tuple[bool, bool]:
    """Does another option's text go on after this wording, and does one add words before it?"""
    bare = without_articles(wording)
    others = [
        without_articles(text)
        for letter, text in zip(LETTERS, option_texts(choices), strict=False)
        if letter not in letters
    ]
    return any(text.startswith(bare + " ") for text in others), any(text.endswith(" " + bare) for text in others)
