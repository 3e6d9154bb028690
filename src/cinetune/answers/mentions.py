"""Where a reply names an option: by letter, by its words, or by its place among the options."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cinetune.answers import options
from cinetune.answers.letters import of, readable, span
from cinetune.answers.words import CLAUSE_END, FRAME, FUNCTION_WORD, NOT_AFTER_ARTICLE, SENTENCE_END
from cinetune.task.description import LETTERS

CONTEXT_CHARS = 80  # how far around a mention its cue or denial may stand; it also keeps a ramble linear


@dataclass(frozen=True)
class Mention:
    """A span that names an option; `is_marked` where brackets or a word ("option B") leave no doubt."""

    start: int
    end: int
    letter: str
    is_text: bool = False
    is_marked: bool = False


NUMBERS = r"10|[1-9]|one|two|three|four|five|six|seven|eight|nine|ten"
# "I" is the ninth option only where it is not who speaks.
PRONOUN_AFTER = re.compile(r" (?!(?:is|isn't|because|since|or|and|but|nor|fits|seems|makes|matches|as)\b)\w")
INITIAL_BEFORE, NAME_AFTER = re.compile(r"\b[A-Z]\. ?$"), re.compile(r"\. ?[A-Z]\w")
OPTION_WORD = re.compile(
    r"(?:\bthe )?\b(?:answer )?(?:option|choice|letter|alternative|letra|lettre|lettera|buchstabe|opci[oó]n|opção"
    r"|opzione"
    r"|вариант|bokstav)s? ?[\"'(\[{<]*$",
    re.IGNORECASE,
)
OPEN, CLOSE = re.compile(r"[\"'(\[{<]+ ?$"), re.compile(r"[\"')\]}>]+| [)\]}]+")
NUMBERED = re.compile(
    rf"\b(?:option|choice|alternative|answer)s? (?:no\. ?|number |#)?({NUMBERS})\b(?![.,]\d|%)",
    re.IGNORECASE,
)
NUMBER_LABEL = re.compile(r"^\(?(10|[1-9])(?:[).:]|$)", re.MULTILINE)
ORDINAL_WORDS = ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"]
ORDINALS = {word: place for place, word in enumerate(ORDINAL_WORDS, 1)}
ORDINALS |= {"1st": 1, "2nd": 2, "3rd": 3} | {f"{place}th": place for place in range(4, 11)}
ORDINAL_WORD = f"({'|'.join(ORDINALS)}|last)"
ORDINAL = re.compile(
    rf"\b(?:the )?{ORDINAL_WORD} (?:answer )?(?:option|alternative)\b"
    rf"|\bthe {ORDINAL_WORD} (?:choice|one)\b(?=[.!,;]|$| is (?:correct|right|wrong|out))",
    re.IGNORECASE | re.MULTILINE,
)
PREPOSITION = (
    r"in|on|at|inside|under|behind|from|to|near|by|with|without|over|above|below|beside|outside|after|before|into"
    r"|onto|of"
    r"|for|through|towards?|around|about|between|against"
)
SAME_PLACE = {"in", "on", "at", "inside"}
DETERMINER = r"(?:the|an?)"
GOES_ON = re.compile(
    rf"\s+(?:{PREPOSITION}|next|and|who|that|which|wearing|whose|as|\w+ing|\w+ed)(?!\w)", re.IGNORECASE
)
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


def find_mentions(text: str, choices: Sequence[str]) -> list[Mention]:
    """Every mention in order; of overlapping ones, what was read first (words, places, letters) stands."""
    taken = [False] * (len(text) + 1)
    found: list[Mention] = []
    for reader in (_in_words, _by_place, _at_place_in_words, _by_letter):
        fresh = [mention for mention in reader(text, choices) if not any(taken[mention.start : mention.end])]
        for mention in fresh:
            taken[mention.start : mention.end] = [True] * (mention.end - mention.start)
        found += [mention for mention in fresh if mention.letter]
    return sorted(found, key=lambda mention: (mention.start, mention.letter))


def _either(forms: Sequence[str]) -> str:
    """Any of the wordings, longest first, with or without articles between the words."""
    bare = sorted({options.without_articles(form) for form in forms} | set(forms), key=lambda form: (-len(form), form))
    between = rf"\s+(?:{DETERMINER}\s+)?"
    return "|".join(between.join(map(re.escape, form.split(" "))) for form in bare)


def _in_words(text: str, choices: Sequence[str]) -> Iterator[Mention]:
    forms = options.wordings(choices)
    cores = _cores(choices)
    forms = {form: letters for form, letters in forms.items() if form not in cores}
    if not forms:
        return
    neighbours = {form: options.longer_neighbours(form, letters, choices) for form, letters in forms.items()}
    pattern = re.compile(
        rf"(?<!\w)(?<!\d[.,/:])(?<!\w-)(?:{DETERMINER}\s+)?(?P<words>{_either(list(forms))})(?!\w|[.,/:]\d|-\w|'s"
        rf"|\s?%)",
        re.IGNORECASE,
    )
    for found in pattern.finditer(text):
        whole, words = _plain(found[0]), _plain(found["words"])
        key = next((key for key in (whole, words, options.without_articles(words)) if key in forms), "")
        if key and _goes_on_with_another(text, found.end(), key, forms):
            continue
        if not key or not _stands_alone(text, found.start("words"), found.end(), key, neighbours[key]):
            continue
        start, end = found.span()
        articles = len(options.ARTICLE.findall(words)) > len(options.ARTICLE.findall(key))
        follows = NEXT_WORD.match(text, end)
        if articles and follows and not FUNCTION_WORD.fullmatch(follows[1]):
            continue  # "the man in the red coat" is not "the man in red"
        if options.is_number(key):
            if not _is_number_answer(text, found.start("words"), end, key):
                continue
            start = found.start("words")
        yield from _spread(start, end, forms[key], text)


def _spread(start: int, end: int, letters: set[str], text: str) -> Iterator[Mention]:
    """A wording of two options is one mention of neither: its letter is "AB"."""
    yield Mention(start, end, "".join(sorted(letters)), is_text=True)


def _goes_on_with_another(text: str, end: int, key: str, forms: dict[str, set[str]]) -> bool:
    """Does "and" add a word of another option, as "and tired" behind "he is jealous"?"""
    added = re.match(r" (?:and|or) (\w{3,})", text[end : end + CONTEXT_CHARS])
    if not added or FUNCTION_WORD.fullmatch(added[1]) or added[1].lower() in key.split(" "):
        return False
    return any(len(form.split(" ")) > 1 and form.endswith(" " + added[1].lower()) for form in forms if form != key)


def _stands_alone(text: str, start: int, end: int, key: str, neighbours: tuple[bool, bool]) -> bool:
    """Is it the option, and not a piece of a longer phrase that only begins or ends like it?"""
    goes_on, is_preceded = neighbours
    if goes_on and GOES_ON.match(text, end):
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
        core = options.core_of_place(words)
        if core != words and options.PLACE.match(words):
            cores.setdefault(core, set()).add(letter)
    inside = [options.without_articles(words) for words in texts]
    return {
        core: letters
        for core, letters in cores.items()
        if len(core) > 1 and sum(bool(re.search(rf"(?<!\w){re.escape(core)}(?!\w)", words)) for words in inside) == 1
    }


def _at_place_in_words(text: str, choices: Sequence[str]) -> Iterator[Mention]:
    cores = _cores(choices)
    if not cores:
        return
    pattern = re.compile(
        rf"(?<!\w)(?<!\w-)(?:(?P<where>{PREPOSITION})\s+)?(?:(?P<article>{DETERMINER})\s+)?(?P<words>{_either(list(cores))})"
        r"(?!\w|-\w|'s)",
        re.IGNORECASE,
    )
    for found in pattern.finditer(text):
        where = (found["where"] or "").lower()
        if where and where not in SAME_PLACE:
            continue
        before = LAST_WORD.search(text[max(0, found.start() - 20) : found.start()])
        if not where and before and not FRAME.fullmatch(before[1]):
            continue
        after = NEXT_WORD.match(text, found.end())
        if after and not FUNCTION_WORD.fullmatch(after[1]) and "\n" not in after[0]:
            continue
        yield from _spread(found.start(), found.end(), cores[options.without_articles(_plain(found["words"]))], text)


def _by_place(text: str, choices: Sequence[str]) -> Iterator[Mention]:
    """Mentions as "the second option" and "option 2"; where options speak of numbers, "option 2" could mean either."""
    has_numbers, known = options.has_numbers(choices), readable(choices)
    for found in NUMBERED.finditer(text):
        place = int(found[1]) if found[1].isdigit() else options.NUMBER_WORDS.index(found[1].lower())
        letter = "" if has_numbers or place > len(known) else known[place - 1]
        yield Mention(found.start(), found.end(), letter, False, True)
    if options.are_numbered(choices):
        for found in NUMBER_LABEL.finditer(text):
            if int(found[1]) <= len(choices):
                yield Mention(found.start(), found.end(), LETTERS[int(found[1]) - 1], False, True)
    for found in ORDINAL.finditer(text):
        word = (found[1] or found[2]).lower()
        if re.search(
            r"\b(?:my|your|his|her|our|their) $", text[max(0, found.start() - 6) : found.start()], re.IGNORECASE
        ):
            continue
        place = len(choices) if word == "last" else ORDINALS[word]
        if 0 < place <= len(known):
            yield Mention(found.start(), found.end(), known[place - 1], False, True)


def _by_letter(text: str, choices: Sequence[str]) -> Iterator[Mention]:
    own, known = of(choices), readable(choices)
    # A letter of a range ("A to F") is none of the options where the range ends beyond them.
    beyond = f"{chr(ord('A') + len(own))}-Z"
    pattern = (
        rf"(?<![\w+.°&])(?<!\b[MD][rs]\. )(?<!\bMrs\. )(?<!\w['-])[{span(known)}{span(own).lower()}]"
        rf"(?![\w+#°&]|'\w|-\w|\.\w\b|\. ?[A-Z]\.(?= ?\w)|(?: to |-)[{beyond}]\b)"
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
    if letter in "Aa" and not named and re.match(r" \w", after) and not NOT_AFTER_ARTICLE.match(after):
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
    framed = (
        opens
        or bool(word and FRAME.fullmatch(word[1]))
        or bool(re.search(r"[:=>→\[({\"'/&+-] ?$|[^\w\s] $|[éè] (?:a|la) $", clause))
    )
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


def _plain(words: str) -> str:
    return " ".join(words.lower().split())
