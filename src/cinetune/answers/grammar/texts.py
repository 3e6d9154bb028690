"""Where a reply names an option by the option's own words, or by the core of them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence

from cinetune.answers.grammar import options
from cinetune.answers.grammar.places import Place
from cinetune.answers.grammar.words import FRAME, FUNCTION_WORD
from cinetune.answers.letters import of
from cinetune.task.description import LETTERS

AHEAD_CHARS = 80  # how far behind an option's words another's are looked for
PREPOSITION = (
    r"in|on|at|inside|under|behind|from|to|near|by|with|without|over|above|below|beside|outside|after|before|into"
    r"|onto|of"
    r"|for|through|towards?|around|about|between|against"
)
# These say "at this place" of one place or another; any other preposition says something of its own.
SAME_PLACE = {"in", "on", "at", "inside"}
DETERMINER = r"(?:the|an?)"
GOES_ON = re.compile(
    rf"\s+(?:{PREPOSITION}|next|full|called|named|and|who|that|which|wearing|whose|as|\w+ing|\w+ed)(?!\w)",
    re.IGNORECASE,
)
OWNER_BEFORE = re.compile(
    r"\b(?:his|her|its|their|my|our|your|(?!(?:he|she|it|that|there|who|what|here)'s)\w+'s) $", re.I
)
USE = re.compile(r"us(?:e|es|ed|ing)", re.IGNORECASE)
NEXT_WORD, LAST_WORD = re.compile(r"\s+(\w+)"), re.compile(r"(\w+)[ \"'(]*$")
ONE_AS_PRONOUN_BEFORE = re.compile(
    r"\b(?:the|this|that|which|no|any|each|every|other|another|correct|right|wrong|best|some|only|last|first|second"
    r"|third"
    r"|fourth|fifth|good)\s+$",
    re.IGNORECASE,
)
ONE_AS_PRONOUN_AFTER = re.compile(
    r"\s+(?:of|who|that|which|or|day|another|can|could|might|would|is|must)\b", re.IGNORECASE
)


def _either(forms: Sequence[str]) -> str:
    """Any of the wordings, longest first, with or without articles between the words."""
    bare = sorted({options.without_articles(form) for form in forms} | set(forms), key=lambda form: (-len(form), form))
    between = rf"\s+(?:{DETERMINER}\s+)?"
    return "|".join(between.join(map(re.escape, form.split(" "))) for form in bare)


def find_texts(text: str, choices: Sequence[str]) -> Iterator[Place]:
    """Where a wording of an option stands; one that could mean several options has the letters of them all."""
    forms = options.wordings(choices)
    cores = _cores(choices)
    forms = {form: letters for form, letters in forms.items() if form not in cores}
    if not forms:
        return
    texts = options.option_texts(choices)
    neighbours = {form: options.longer_neighbours(form, letters, choices) for form, letters in forms.items()}
    pattern = re.compile(
        rf"(?<!\w)(?<!\d[.,/:])(?<!\w-)(?:{DETERMINER}\s+)?(?P<words>{_either(list(forms))})(?!\w|[.,/:]\d|-\w|'s"
        rf"|\s?%)",
        re.IGNORECASE,
    )
    for found in pattern.finditer(text):
        whole, words = _plain(found[0]), _plain(found["words"])
        key = next((key for key in (whole, words, options.without_articles(words)) if key in forms), "")
        if not key or _is_second_half(text, found, key, forms):
            continue
        next_words, is_preceded = neighbours[key]
        if _goes_on_with_another(text, found.end(), key, forms, next_words):
            yield *found.span(), of(choices)
            continue
        named = [texts[LETTERS.index(letter)] for letter in forms[key]]
        if _is_of_another_owner(text, found, named, bool(next_words) or is_preceded):
            continue
        if not _stands_alone(text, found.start("words"), found.end(), next_words, is_preceded):
            continue
        start, end = found.span()
        articles = len(options.ARTICLE.findall(words)) > len(options.ARTICLE.findall(key))
        follows = NEXT_WORD.match(text, end)
        # "The man in the red coat" is not "the man in red", and "no idea" is not "no".
        if (articles or key == "no") and follows and not FUNCTION_WORD.fullmatch(follows[1]):
            continue
        if options.is_number(key):
            if not _is_number_answer(text, found.start("words"), end, key):
                continue
            start = found.start("words")
        yield start, end, "".join(sorted(forms[key]))


def _goes_on_with_another(
    text: str, end: int, key: str, forms: dict[str, set[str]], next_words: Collection[str]
) -> bool:
    """Does "and" add words of another option, as "and tired" behind "he is jealous", so that several are named?"""
    added = re.match(r"(?:,? (?:and |or |then )+|, )(?:also |later |finally )?(\w{3,})", text[end : end + AHEAD_CHARS])
    if added and "and" in next_words:
        return True
    if not added or FUNCTION_WORD.fullmatch(added[1]) or added[1].lower() in (*key.split(" "), *forms):
        return False
    rest = text[end + added.start(1) : end + AHEAD_CHARS].lower()
    return any(
        form.endswith(" " + added[1].lower()) or rest.startswith(form.partition(" ")[2])
        for form in forms
        if form != key and " " in form
    )


def _is_second_half(text: str, found: re.Match[str], key: str, forms: dict[str, set[str]]) -> bool:
    """Is it the end of two options named together, as in "before or after the wedding"?"""
    earlier = re.search(r"(\w+) (?:or|and|nor) $", text[max(0, found.start() - 30) : found.start()])
    first, _, shared = key.partition(" ")
    if not earlier or not shared:
        return False
    return earlier[1].lower() != first and f"{earlier[1].lower()} {shared}" in forms


def _is_of_another_owner(text: str, found: re.Match[str], named: Sequence[str], has_neighbours: bool) -> bool:
    """Is it "his ring" where the option is "her ring", or "my dog" beside "a dog" and "the dog next door"?"""
    said = OWNER_BEFORE.search(text[max(0, found.start() - 12) : found.start()])
    if not said:
        return False
    own = re.compile(rf"({options.OWNERS} ){re.escape(_plain(found['words']))}$")
    owners = {owner[1] for option in named if (owner := own.search(option))}
    has_article = any(map(options.LEADING_ARTICLE.match, named))
    return said[0].lower() not in owners if owners else has_article and has_neighbours


def _stands_alone(text: str, start: int, end: int, next_words: Collection[str], is_preceded: bool) -> bool:
    """Is it the option, and not a piece of a longer phrase that only begins or ends like it?"""
    follows = GOES_ON.match(text, end)
    # Where others only add "and ...", words that describe this one are its own.
    if follows and (set(next_words) - {"and", "but"} or follows[0].strip().lower() in next_words):
        return False
    before = LAST_WORD.search(text[max(0, start - 20) : start])
    return not (
        is_preceded and before and not FRAME.fullmatch(before[1]) and before[1].lower() not in {"the", "a", "an"}
    )


def _is_number_answer(text: str, start: int, end: int, key: str) -> bool:
    before, after = text[max(0, start - 20) : start], text[end : end + 20]
    if re.search(
        r"\b(?:minus|negative|point|chapter|scene|part|season|episode|page|level|act|step|line|room|floor|frame|clip"
        r"|figure) $",
        before,
        re.IGNORECASE,
    ):
        return False
    if re.search(r"(?:[+×*=/<>] |[+$€£/:.,×*=-])$", before) and not re.search(r"[^\W\d]:$", before):
        return False
    if re.search(r"\b(?:option|choice|alternative|letter|number|answer)s? #?$", before, re.IGNORECASE):
        return False
    if re.match(
        r" ?[°/×x*+=:<>-] ?\d|\s*(?:a\.?m|p\.?m|o'clock|st|nd|rd|th|hundred|thousand|million|dozen|percent"
        r"|and a half)\b",
        after,
    ):
        return False
    return key != "one" or not (ONE_AS_PRONOUN_BEFORE.search(before) or ONE_AS_PRONOUN_AFTER.match(after))


def _cores(choices: Sequence[str]) -> dict[str, set[str]]:
    """What is left of options of place without "on the": only where it then names exactly one option."""
    texts = options.option_texts(choices)
    cores: dict[str, set[str]] = {}
    for letter, words in zip(LETTERS, texts, strict=False):
        core = options.without_preposition(words)
        if core != words and options.PREPOSITION.match(words):
            cores.setdefault(core, set()).add(letter)
    inside = [options.without_articles(words) for words in texts]
    return {
        core: letters
        for core, letters in cores.items()
        if len(core) > 1 and sum(bool(re.search(rf"(?<!\w){re.escape(core)}(?!\w)", words)) for words in inside) == 1
    }


def find_cores(text: str, choices: Sequence[str]) -> Iterator[Place]:
    """Where an option is named without its preposition, or with another of the same sense."""
    cores = _cores(choices)
    if not cores:
        return
    texts = options.option_texts(choices)
    pattern = re.compile(
        rf"(?<!\w)(?<!\w-)(?:(?P<where>{PREPOSITION})\s+)?(?:(?P<article>{DETERMINER})\s+)?(?P<words>{_either(list(cores))})"
        r"(?!\w|-\w|'s)",
        re.IGNORECASE,
    )
    for found in pattern.finditer(text):
        where = (found["where"] or "").lower()
        letters = cores[options.without_articles(_plain(found["words"]))]
        if where and not any(_is_same_preposition(where, texts[LETTERS.index(letter)]) for letter in letters):
            continue
        before = LAST_WORD.search(text[max(0, found.start() - 20) : found.start()])
        if not where and before and not (FRAME.fullmatch(before[1]) or USE.fullmatch(before[1])):
            continue
        after = NEXT_WORD.match(text, found.end())
        if after and not FUNCTION_WORD.fullmatch(after[1]) and "\n" not in after[0]:
            continue
        yield *found.span(), "".join(sorted(letters))


def _is_same_preposition(said: str, option: str) -> bool:
    own = option.partition(" ")[0]
    # "Between sunset and midnight" names two.
    return said in (own, "between") or {said, own} <= SAME_PLACE


def _plain(words: str) -> str:
    return " ".join(words.lower().split())
