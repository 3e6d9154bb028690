"""From a model's words to an option, as a fair reader would take them.

Nothing here guesses: text that names no option, or several, gives None.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from cinetune.answers import patterns
from cinetune.answers.reply import reply_of
from cinetune.cinepile.questions import LETTERS


@dataclass(frozen=True)
class Mention:
    """A place where the text names an option, by its letter or (`is_text`) by its words."""

    start: int
    end: int
    letter: str
    is_text: bool
    is_bracketed: bool


@dataclass(frozen=True)
class Statement:
    """One or more mentions that belong together; `letter` is None when they name several options."""

    letter: str | None
    strength: int
    is_affirmed: bool


# How much a statement commits to its option. Of declarations the last wins; below that, two options cancel.
DECLARED, LETTERED, BARE, IN_WORDS = 3, 2, 1, 0
CONTEXT_CHARS = 80  # how far around a mention its cue or denial may stand; it also keeps a ramble linear


def parse_lenient(text: str, choices: Sequence[str]) -> str | None:
    """The letter that a fair reader takes from any wording, or None when no option, or several, are meant.

    Options may be named by letter or by text. The last declaration wins; denied options do not count; a
    letter that this question does not have is no answer. Time is linear in the length of the text.
    """
    letter = _settle(_read_statements(without_option_list(_fold(reply_of(text))), choices))
    return letter if letter is not None and letter in LETTERS[: len(choices)] else None


def is_abstention(text: str, choices: Sequence[str]) -> bool:
    """Does the text speak but decline to choose ("None", "I cannot tell", "A or B", "AB")?

    Silence, a letter that does not exist and words beside the point are unparsed, not abstentions.
    """
    if parse_lenient(text, choices) is not None:
        return False
    folded = without_option_list(_fold(reply_of(text)))
    statements = [statement for statement in _read_statements(folded, choices) if statement.is_affirmed]
    named = {statement.letter for statement in statements}
    undecided = None in named or len(named) > 1
    return undecided or bool(patterns.ONLY_LETTERS.fullmatch(folded) or patterns.REFUSAL.search(folded))


def without_option_list(text: str) -> str:
    """Drop lines that repeat the question's options: two or more in a row with rising letters."""
    lines = text.split("\n")
    letters = [found[1] if (found := patterns.LISTED_OPTION.match(line)) else "" for line in lines]
    listed: set[int] = set()
    previous = None
    for index, letter in enumerate(letters):
        if letter:
            if previous is not None and letters[previous] < letter:
                listed |= {previous, index}
            previous = index
        elif lines[index].strip():
            previous = None
    return "\n".join(line for index, line in enumerate(lines) if index not in listed)


def _fold(text: str) -> str:
    """One form for full-width and look-alike letters, quotes, markdown and space; line breaks stay."""
    folded = unicodedata.normalize("NFKC", text).translate(patterns.LOOK_ALIKES)
    folded = "".join(char for char in folded if unicodedata.category(char) != "Cf")
    folded = re.sub(r"[*_`#$\\|]+", " ", folded.replace("\\boxed", " boxed "))
    return "\n".join(" ".join(line.split()) for line in folded.splitlines()).strip()


def _option_pattern(choices: Sequence[str]) -> tuple[re.Pattern[str] | None, dict[str, set[str]]]:
    """A pattern for any option's text, article optional, and the letters by text in lower case."""
    letters: dict[str, set[str]] = {}
    for letter, choice in zip(LETTERS, choices, strict=False):
        words = " ".join(_fold(choice).split()).strip(" .!?\"'").lower()
        without_article = re.sub(r"^(?:the|an?) ", "", words)
        # A text that is itself a letter of the alphabet's start cannot be told from the letter.
        for form in {words, without_article}:
            if form and not re.fullmatch("[a-e]", form):
                letters.setdefault(form, set()).add(letter)
    if not letters:
        return None, letters
    forms = sorted(letters, key=lambda form: (-len(form), form))
    either = "|".join(r"\s+".join(map(re.escape, form.split(" "))) for form in forms)
    pattern = rf"(?<!\w)(?<!\d[.,])(?:(?:the|an?)\s+)?(?P<words>{either})(?!\w|[.,]\d)"
    return re.compile(pattern, re.IGNORECASE), letters


def _find_mentions(text: str, choices: Sequence[str]) -> list[Mention]:
    pattern, by_text = _option_pattern(choices)
    mentions: list[Mention] = []
    for found in pattern.finditer(text) if pattern else ():
        whole = " ".join(found[0].lower().split())
        words = " ".join(found["words"].lower().split())
        # An unlucky pair such as "the dog" and "a dog" is told apart by its article, or not at all.
        letters = by_text.get(whole) or by_text.get(words) or set()
        for letter in sorted(letters):
            mentions.append(Mention(found.start(), found.end(), letter, True, False))
    covered = [(mention.start, mention.end) for mention in mentions]
    position = 0
    for found in patterns.LETTER.finditer(text):
        while position < len(covered) and covered[position][1] <= found.start():
            position += 1
        if position < len(covered) and covered[position][0] <= found.start():
            continue
        mention = _letter_mention(text, found.start())
        if mention:
            mentions.append(mention)
    return sorted(mentions, key=lambda mention: (mention.start, mention.letter))


def _letter_mention(text: str, start: int) -> Mention | None:
    """The letter at `start` as an option; None where it is an article, an initial or a stray letter."""
    before, after = _before(text, start), text[start + 1 : start + 1 + CONTEXT_CHARS]
    letter = text[start]
    if patterns.INITIAL_BEFORE.search(text[max(0, start - 3) : start]) and patterns.NAME_AFTER.match(after):
        return None
    is_bracketed = after[:1] in {")", "]", "}"}
    stands_alone = not re.match(r"[)\]}\"' ]*\w", after.split("\n")[0])
    if letter in "Aa" and re.match(r" \w", after) and not patterns.NOT_AFTER_ARTICLE.match(after):
        return None
    cued = bool(patterns.DECLARING.search(before) or patterns.NAMING.search(before))
    opens = not re.search(r"\w", before)
    if letter.islower():
        # A small letter counts only where nothing else can be meant: "b", "b.", "(b)", "option b".
        is_option = is_bracketed or (opens and stands_alone)
        is_option = is_option or (cued and (letter != "a" or stands_alone or bool(patterns.NAMING.search(before))))
    else:
        # "Vitamin C", "Agent B": in running text a capital is an option only where it opens a clause, is
        # cued or denied, or is joined to another ("between A and B").
        is_option = is_bracketed or cued or not re.search(r"\w", _last_clause(before))
        is_option = is_option or bool(
            patterns.NEGATION.search(before)
            or patterns.JOINED_BEFORE.search(before)
            or patterns.JOINED_AFTER.match(after)
        )
    if not is_option:
        return None
    return Mention(start, start + 1, letter.upper(), False, is_bracketed)


def _before(text: str, start: int) -> str:
    """What precedes a mention in its own sentence, at most CONTEXT_CHARS."""
    window = text[max(0, start - CONTEXT_CHARS) : start]
    ends = [found.end() for found in patterns.SENTENCE_END.finditer(window)]
    return window[ends[-1] :] if ends else window


def _last_clause(before: str) -> str:
    ends = [found.end() for found in patterns.CLAUSE_END.finditer(before)]
    return before[ends[-1] :] if ends else before


def _read_statements(text: str, choices: Sequence[str]) -> list[Statement]:
    """Group neighbouring mentions ("A or B", "B) the option's text") and weigh each group."""
    mentions = _find_mentions(text, choices)
    groups: list[list[Mention]] = []
    for mention in mentions:
        if groups and _belong_together(text, groups[-1][-1], mention):
            groups[-1].append(mention)
        else:
            groups.append([mention])
    statements = []
    for index, group in enumerate(groups):
        previous_end = groups[index - 1][-1].end if index else 0
        next_start = groups[index + 1][0].start if index + 1 < len(groups) else len(text)
        statement = _weigh(text, group, previous_end, next_start)
        if statement:
            statements.append(statement)
    return statements


def _belong_together(text: str, left: Mention, right: Mention) -> bool:
    if right.start < left.end:
        return True
    gap = text[left.end : right.start]
    if len(gap) > CONTEXT_CHARS or "\n" in gap:
        return False
    if patterns.JOINED.fullmatch(gap):
        return True
    if right.is_text and not left.is_text:
        return bool(patterns.BEFORE_OWN_TEXT.fullmatch(gap))
    after = text[right.end : right.end + 1]
    return bool(patterns.ENUMERATED.fullmatch(gap)) and after in {"", ".", ":", "\n"}


def _weigh(text: str, group: Sequence[Mention], previous_end: int, next_start: int) -> Statement | None:
    start, end = group[0].start, max(mention.end for mention in group)
    sentence_before = _before(text, start)
    before = text[max(previous_end, start - len(sentence_before)) : start]
    after = text[end : min(next_start, end + CONTEXT_CHARS)]
    stop = patterns.SENTENCE_END.search(after)
    sentence_after = after[: stop.start()] if stop else after
    clause_end = patterns.CLAUSE_END.search(after)
    predicate = after[: clause_end.start()] if clause_end else after

    denials = len(patterns.NEGATION.findall(_last_clause(before)))
    judged = patterns.PREDICATE.match(predicate)
    if judged:
        denials += len(patterns.NEGATION.findall(predicate))
    letters = {mention.letter for mention in group}
    letter = letters.pop() if len(letters) == 1 else None
    is_whole = not re.search(r"\w", sentence_before) and not re.search(r"\w", sentence_after)
    is_whole = is_whole and (next_start >= len(text) or bool(stop))
    if stop and stop[0] == "?" and not is_whole:
        return None
    if judged:
        # "B is correct" declares; "B is where she left it" only speaks of it, unless cued as the answer.
        declares = bool(patterns.APPROVAL.search(predicate))
    else:
        declares = is_whole or bool(patterns.REASON.match(after) and not group[0].is_text)
    declares = declares or bool(patterns.DECLARING.search(before))
    opens_reply = start < CONTEXT_CHARS and not re.search(r"\w", text[:start])
    if declares:
        strength = DECLARED
    elif all(mention.is_text for mention in group):
        strength = IN_WORDS
    elif group[0].is_bracketed or patterns.NAMING.search(before) or opens_reply:
        strength = LETTERED
    else:
        strength = BARE
    return Statement(letter, strength, denials % 2 == 0)


def _settle(statements: Sequence[Statement]) -> str | None:
    """The last declaration that was not taken back; failing one, the only option named."""
    standing: list[Statement] = []
    for statement in statements:
        if statement.is_affirmed:
            standing.append(statement)
        elif statement.letter is not None:
            standing = [earlier for earlier in standing if earlier.letter != statement.letter]
    if not standing:
        return None
    strongest = max(statement.strength for statement in standing)
    letters = [statement.letter for statement in standing if statement.strength == strongest]
    if strongest == DECLARED:
        return letters[-1]
    return letters[0] if len(set(letters)) == 1 else None
