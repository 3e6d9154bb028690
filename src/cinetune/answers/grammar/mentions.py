"""Where a reply names an option: by letter, by its words, or by its place among the options."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cinetune.answers.grammar.places import find_places
from cinetune.answers.grammar.texts import find_cores, find_texts
from cinetune.answers.grammar.words import (
    ANSWER_NOUN,
    CHOOSE,
    CLAUSE_END,
    FRAME,
    LETTER_NOUN,
    MAYBE,
    NOT_AFTER_ARTICLE,
    OPTION_NOUN,
    SENTENCE_END,
)
from cinetune.answers.letters import of, readable, span

CONTEXT_CHARS = 80  # how far around a mention its cue or denial may stand; it also keeps a ramble linear


@dataclass(frozen=True)
class Mention:
    """A span that names an option; `is_marked` where brackets or a word ("option B") leave no doubt."""

    start: int
    end: int
    letter: str
    is_text: bool = False
    is_marked: bool = False


# "I" is the ninth option only where it is not who speaks.
PRONOUN_AFTER = re.compile(r" (?!(?:is|isn't|because|since|or|and|but|nor|fits|seems|makes|matches|as)\b)\w")
INITIAL_BEFORE, NAME_AFTER = re.compile(r"\b[A-Z]\. ?$"), re.compile(r"\. ?[A-Z]\w")
OPTION_WORD = re.compile(rf"(?:\bthe )?\b(?:answer )?(?:{OPTION_NOUN}|{LETTER_NOUN})s? ?[\"'(\[{{<]*$", re.IGNORECASE)
ANSWER_BEFORE = re.compile(rf"\b(?:{ANSWER_NOUN}) $", re.IGNORECASE)
OPEN, CLOSE = re.compile(r"[\"'(\[{<]+ ?$"), re.compile(r"[\"')\]}>]+| [)\]}]+")
LAST_WORD = re.compile(r"(\w+)[ \"'(]*$")
BEFORE_LETTER = re.compile(rf"[:=>→\[({{\"'/&+-] ?$|[^\w\s] $|(?:[éè]|{CHOOSE}|{MAYBE}) (?:a|la) $", re.IGNORECASE)
# Words that make a letter a name of something else: "C minor", "B movie".
COMPOUND = re.compile(r" (?:minor|major|flat|sharp|chord|string|note|plot|movie|film|side|team|wing|train|bus|roll)\b")


def find_mentions(text: str, choices: Sequence[str]) -> list[Mention]:
    """Every mention in order; of overlapping ones, what was read first (words, places, letters) stands."""
    taken = [False] * (len(text) + 1)
    found: list[Mention] = []
    for reader in (_by_text, _by_place, _by_core, _by_letter):
        fresh = [mention for mention in reader(text, choices) if not any(taken[mention.start : mention.end])]
        for mention in fresh:
            taken[mention.start : mention.end] = [True] * (mention.end - mention.start)
        found += [mention for mention in fresh if mention.letter]
    return sorted(found, key=lambda mention: (mention.start, mention.letter))


def _by_text(text: str, choices: Sequence[str]) -> Iterator[Mention]:
    """A wording of two options is one mention of neither: its letter is "AB"."""
    return (Mention(*place, is_text=True) for place in find_texts(text, choices))


def _by_core(text: str, choices: Sequence[str]) -> Iterator[Mention]:
    return (Mention(*place, is_text=True) for place in find_cores(text, choices))


def _by_place(text: str, choices: Sequence[str]) -> Iterator[Mention]:
    return (Mention(*place, is_marked=True) for place in find_places(text, choices))


def _by_letter(text: str, choices: Sequence[str]) -> Iterator[Mention]:
    own, known = of(choices), readable(choices)
    # A letter of a range ("A to F") is none of the options where the range ends beyond them.
    beyond = f"{chr(ord('A') + len(own))}-Z"
    pattern = (
        rf"(?<![\w+.°&])(?<!\b[MD][rs]\. )(?<!\bMrs\. )(?<!\w['-])[{span(known)}{span(own).lower()}]"
        rf"(?![\w+#°&]|'(?![dt][iıuü]r\b)\w|-\w|\.\w\b|\. ?[A-Z]\.(?= ?\w)|(?: to |-)[{beyond}]\b)"
    )
    for found in re.finditer(pattern, text):
        mention = _letter_at(text, found.start(), own, known)
        if mention:
            yield mention


def _letter_at(text: str, start: int, own: str, known: str) -> Mention | None:
    """The letter at `start` as an option; None where it is an article, an initial or a stray letter."""
    before, after = _sentence_before(text, start), text[start + 1 : start + 1 + CONTEXT_CHARS]
    letter = text[start]
    if INITIAL_BEFORE.search(text[max(0, start - 3) : start]) and NAME_AFTER.match(after):
        return None
    named = OPTION_WORD.search(before)
    opened = OPEN.search(before)
    closed = CLOSE.match(after)
    is_marked = bool(named or (closed and set(closed[0]) & set(")]}>")))
    if letter in "Ii" and not named and PRONOUN_AFTER.match(after):
        return None
    # No article stands before the scripts of East Asia.
    is_before_word = re.match(r" [^\W\u0370-\U0010ffff]", after)
    is_named = named or ANSWER_BEFORE.search(before)
    if letter in "Aa" and not is_named and is_before_word and not NOT_AFTER_ARTICLE.match(after):
        return None
    if not is_marked and COMPOUND.match(after):
        return None
    if not (is_marked or _is_expected(letter, before, after, own, known)):
        return None
    first = start - len(named[0]) if named else start - len(opened[0]) if opened else start
    return Mention(first, start + 1 + (len(closed[0]) if closed else 0), letter.upper(), False, is_marked)


def _is_expected(letter: str, before: str, after: str, own: str, known: str) -> bool:
    """Is this a place where an option's letter stands, rather than "Vitamin C" or "Agent B"?"""
    clause = CLAUSE_END.split(before)[-1]
    opens = not re.search(r"\w", clause)
    word = LAST_WORD.search(clause)
    framed = opens or bool(word and FRAME.fullmatch(word[1])) or bool(BEFORE_LETTER.search(clause))
    stands_alone = not re.match(r"[)\]}\"' ]*\w", after.split("\n")[0])
    if letter.islower():
        # A small letter counts only where nothing else can be meant: "b", "b.", "the answer is b".
        return (
            stands_alone
            and framed
            and not (word and len(word[1]) == 1 and word[1].isascii())
            and (not opens or not re.search(r"\w", before))
        )
    if word and len(word[1]) == 1 and word[1] in known:
        return True
    return framed or bool(
        re.match(rf"(?:,? (?:and/or|or|and|nor|vs\.?) | ?[,/&] ?)[{span(own)}](?![\w'])", after) and len(before) < 30
    )


def _sentence_before(text: str, start: int) -> str:
    """What precedes a mention in its own sentence, at most CONTEXT_CHARS."""
    return SENTENCE_END.split(text[max(0, start - CONTEXT_CHARS) : start])[-1]
