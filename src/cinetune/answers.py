"""From a model's words to an answer: the published strict parser, a lenient one, and readable text.

Nothing here guesses: text that names no option, or several, gives None.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

LETTERS = "ABCDE"


@dataclass(frozen=True)
class CleanAnswer:
    """What a reader is shown: the words of the answer and, for multiple choice, the option's letter."""

    answer: str
    choice: str | None


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

# Greek, Cyrillic, Cherokee and Lisu letters that look like A to E; NFKC folds full-width and circled ones.
LOOK_ALIKES = str.maketrans(
    "ΑΒΕАВСЕасеԁᎪᏴᏟᎠᎬꓮꓐꓚꓓꓰ’‘“”«»",
    'ABEABCEacedABCDEABCDE\'\'""""',
)
SPECIAL_TOKENS = re.compile(r"<s>|<pad>|<unk>|<video>|<image>|<\|[^|<>\s]{1,40}\|>|\[/?INST\]", re.IGNORECASE)
END_OF_TEXT = re.compile(r"</s>|<\|endoftext\|>|<\|im_end\|>|<\|eot_id\|>", re.IGNORECASE)
TURN = re.compile(r"\b(USER|ASSISTANT)[ \t]*:")
LISTED_OPTION = re.compile(r"^[ \t]*(?:[-•*][ \t]*)?\(?([A-E])[ \t]*[).:][ \t]*\S")
PUBLISHED_ANSWER = re.compile(r"answer:\s*([a-e])", re.IGNORECASE)

CONTEXT_CHARS = 80  # how far around a mention its cue or denial may stand; it also keeps a ramble linear
LETTER = re.compile(r"(?<![\w'+.])(?<!\w-)[A-Ea-e](?![\w+#]|'\w|-\w|\.\w\b|\. ?[A-Z]\.(?= ?\w))")
INITIAL_BEFORE, NAME_AFTER = re.compile(r"\b[A-Z]\. ?$"), re.compile(r"\. ?[A-Z]\w")
SENTENCE_END = re.compile(r"[.!?](?=\W|$)|[。！？\n]")
CLAUSE_END = re.compile(
    r"[.!?](?=\W|$)|[。！？\n;,]"
    r"|\b(?:but|however|so|therefore|thus|hence|because|since|although|while)\b",
    re.IGNORECASE,
)
NEGATION = re.compile(
    r"\b(?:not|never|neither|nor|cannot|wrong|incorrect|false|except|unlike|unlikely|impossible"
    r"|exclud\w+|eliminat\w+|reject\w*|rul(?:e|ed|es|ing)(?: it)? out"
    r"|rather than|other than|instead of)\b|n't\b",
    re.IGNORECASE,
)
DECLARING = re.compile(
    r"(?:\b(?:answer|ans|solution|choose|chose|choosing|pick|picked|select|selected|say|guess|think"
    r"|believe|prefer|go|going|opt|settle|points? to|leaves|match(?:es)?|is|be|was|it's|that's|no|wait"
    r"|sorry|correction|actually|instead|rather|mean|probably|definitely|maybe|perhaps|therefore|so"
    r"|thus|hence|boxed)\b|[:=→>])[ ,:=>-]*"
    r"(?:(?:the|my|your|final|correct|best|right|most|likely|probably|perhaps|maybe|definitely|clearly"
    r"|simply|actually|of course|to be|that|for|with|on|option|choice|letter|answer)\b[ ,:]*)*"
    r"[ \"'(\[{-]*$",
    re.IGNORECASE,
)
NAMING = re.compile(r"\b(?:option|choice|letter)s?[ :]*[\"'(\[{]*$", re.IGNORECASE)
PREDICATE = re.compile(
    r"[)\]}\"' ]*,?[ ]*(?:(?:which|that)[ ])?"
    r"(?:is|are|was|were|can|cannot|could|may|might|does|do|did|seems?|looks?|would|should|must|has|fits?"
    r"|makes?)(?:n't)?\b",
    re.IGNORECASE,
)
APPROVAL = re.compile(
    r"\b(?:correct|right|best|true|answer|fits?|choice|likely|makes?|wrong|incorrect|false)\b", re.IGNORECASE
)
REASON = re.compile(r"[)\]}.:\"' ]*,?[ ]*(?:because|since|as|for)\b", re.IGNORECASE)
# Words that cannot follow an article: "A because" names option A, "A man" does not.
NOT_AFTER_ARTICLE = re.compile(
    r" (?:a|an|the|this|that|these|those|he|she|it|they|there|i|we|you|his|her|their|its|because|since|as"
    r"|for|is|isn't|was|wasn't|are|were|or|and|but|nor|in|on|at|to|from|by|with|would|seems|looks|fits"
    r"|makes|can|can't|cannot|could|may|might|does|doesn't|do|did|didn't|not|instead|if|when|which|who)"
    r"(?![\w'])",
    re.IGNORECASE,
)
CONJUNCTION = r"(?:and/or|or|and|nor|versus|vs)"
JOINED = re.compile(
    rf"[)\]}}\"' ]*(?:[ ,/&]|\b{CONJUNCTION}\b)*(?:(?:maybe|perhaps|possibly|even|also) )?"
    r"(?:option|choice)?[(\[{\"' ]*"
)
JOINED_BEFORE = re.compile(rf"(?<![\w'])[A-E][)\]]?(?:,? {CONJUNCTION} | ?[,/&] ?| )(?:option |choice )?[(\[]?$")
JOINED_AFTER = re.compile(rf"(?:,? {CONJUNCTION} | ?[,/&] ?)(?:option |choice )?[A-E](?![\w'])")
ENUMERATED = re.compile(r"[)\]}\"' ]*[.:][ ]*")
BEFORE_OWN_TEXT = re.compile(r"[()\]}.:,–—\" -]*")
REFUSAL = re.compile(
    r"\b(?:none|neither|unclear|unknown|unable to|n/a|don't know|impossible to|(?:all|both) of (?:the|them)"
    r"|no (?:idea|answer|option|choice)|can(?:not|'t) (?:be|say|tell|determine|answer|know|choose)"
    r"|not (?:sure|certain|enough|clear|know|given|mentioned|provided|possible))\b",
    re.IGNORECASE,
)
ONLY_LETTERS = re.compile(r"\W*[A-E]{2,5}\W*")

ABBREVIATION = re.compile(
    r"(?:\b(?:mr|mrs|ms|dr|st|jr|sr|prof|vs|etc|e\.g|i\.e|no|lt|sgt|capt)|\b[A-Z])\.$", re.IGNORECASE
)
SENTENCE_STOP = re.compile(r"[.!?]+[\"')\]]*(?=\s|$)|[。！？]+|\n")
LABEL = re.compile(r"^(?:[-•#>]\s+|(?:the\s+)?(?:final\s+)?answer\s*:\s*|assistant\s*:\s*|user\s*:\s*)+", re.IGNORECASE)
PROMPT_LINE = re.compile(r"^\W*(?:question|options|choices|subtitles?|video|note|instructions?)\s*:", re.IGNORECASE)
INLINE_OPTION_A, INLINE_OPTION_B = re.compile(r"(?<!\w)A\) "), re.compile(r"(?<!\w)B\) ")
LONGEST_LOOP_WORDS = 12


def parse_strict(text: str, choices: Sequence[str], gold_index: int | None = None) -> str | None:
    """The letter that the published protocol credits, or None where it would score any answer as wrong.

    Asterisks and outer space are dropped, case is ignored. Read are: a lone letter; the first `Answer:` with
    a letter after it and an optional `)` and `.`, where the next words up to a line's end, if there are any,
    must be that option's own text; else a whole reply that equals an option's text. The published rule
    compares only with the right answer's text. As text that contradicts its own letter gives None here,
    `parse_strict(...) == gold` is that rule exactly; where two options share a text, `gold_index` (0-based)
    says which one the rule looks at.
    """
    reply = text.replace("*", "").strip()
    if len(reply) == 1 and reply.upper() in LETTERS[: len(choices)]:
        return reply.upper()
    found = PUBLISHED_ANSWER.search(reply)
    if found:
        index = LETTERS.index(found[1].upper())
        rest = reply[found.end() :].removeprefix(")").removeprefix(".").lstrip()
        words = rest.partition("\n")[0].strip().lower()
        if index < len(choices) and words in ("", choices[index].lower()):
            return LETTERS[index]
        return None
    same = [index for index, choice in enumerate(choices[: len(LETTERS)]) if choice.lower() == reply.lower()]
    if gold_index in same:
        return LETTERS[gold_index]
    return LETTERS[same[0]] if same and reply else None


def parse_lenient(text: str, choices: Sequence[str]) -> str | None:
    """The letter that a fair reader takes from any wording, or None when no option, or several, are meant.

    Options may be named by letter or by text. The last declaration wins; denied options do not count; a
    letter that this question does not have is no answer. Time is linear in the length of the text.
    """
    letter = _settle(_read_statements(_without_option_list(_fold(_reply_of(text))), choices))
    return letter if letter is not None and letter in LETTERS[: len(choices)] else None


def is_abstention(text: str, choices: Sequence[str]) -> bool:
    """Does the text speak but decline to choose ("None", "I cannot tell", "A or B", "AB")?

    Silence, a letter that does not exist and words beside the point are unparsed, not abstentions.
    """
    if parse_lenient(text, choices) is not None:
        return False
    folded = _without_option_list(_fold(_reply_of(text)))
    statements = [statement for statement in _read_statements(folded, choices) if statement.is_affirmed]
    named = {statement.letter for statement in statements}
    undecided = None in named or len(named) > 1
    return undecided or bool(ONLY_LETTERS.fullmatch(folded) or REFUSAL.search(folded))


def most_probable(probabilities: Sequence[float]) -> str | None:
    """The letter of the largest share, the first of equals; None where one is not a number."""
    if any(math.isnan(share) for share in probabilities):
        return None
    return LETTERS[max(range(len(probabilities)), key=lambda place: probabilities[place])]


def clean(text: str, choices: Sequence[str] | None) -> CleanAnswer:
    """What to show a person: the chosen option's text and letter, or an open answer's whole sentences.

    With choices, an unreadable reply gives an empty answer and None. Without (None), the model's own words
    are kept; echo, turn markers, option lists, special tokens and repetitions are not.
    """
    if choices is None:
        return CleanAnswer(_whole_sentences(_reply_of(text)), None)
    letter = parse_lenient(text, choices)
    if letter is None:
        return CleanAnswer("", None)
    return CleanAnswer(" ".join(choices[LETTERS.index(letter)].split()), letter)


def _reply_of(text: str) -> str:
    """The model's own turn: without the echoed prompt, later invented turns and special tokens."""
    # A lost EOS token lets a model go on with an invented turn: only what stands before it was the reply.
    parts = [part for part in END_OF_TEXT.split(text) if SPECIAL_TOKENS.sub(" ", part).strip()]
    reply = SPECIAL_TOKENS.sub(" ", parts[0] if parts else "")
    turns = TURN.split(reply)
    if turns[0].strip() and turns[1:2] != ["ASSISTANT"]:
        return turns[0]
    for speaker, words in zip(turns[1::2], turns[2::2], strict=True):
        if speaker == "ASSISTANT" and words.strip():
            return words
    return turns[0] if len(turns) == 1 else ""


def _without_option_list(text: str) -> str:
    """Drop lines that repeat the question's options: two or more in a row with rising letters."""
    lines = text.split("\n")
    letters = [found[1] if (found := LISTED_OPTION.match(line)) else "" for line in lines]
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
    folded = unicodedata.normalize("NFKC", text).translate(LOOK_ALIKES)
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
    for found in LETTER.finditer(text):
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
    if INITIAL_BEFORE.search(text[max(0, start - 3) : start]) and NAME_AFTER.match(after):
        return None
    is_bracketed = after[:1] in {")", "]", "}"}
    stands_alone = not re.match(r"[)\]}\"' ]*\w", after.split("\n")[0])
    if letter in "Aa" and re.match(r" \w", after) and not NOT_AFTER_ARTICLE.match(after):
        return None
    cued = bool(DECLARING.search(before) or NAMING.search(before))
    opens = not re.search(r"\w", before)
    if letter.islower():
        # A small letter counts only where nothing else can be meant: "b", "b.", "(b)", "option b".
        is_option = is_bracketed or (opens and stands_alone)
        is_option = is_option or (cued and (letter != "a" or stands_alone or bool(NAMING.search(before))))
    else:
        # "Vitamin C", "Agent B": in running text a capital is an option only where it opens a clause, is
        # cued or denied, or is joined to another ("between A and B").
        is_option = is_bracketed or cued or not re.search(r"\w", _last_clause(before))
        is_option = is_option or bool(
            NEGATION.search(before) or JOINED_BEFORE.search(before) or JOINED_AFTER.match(after)
        )
    if not is_option:
        return None
    return Mention(start, start + 1, letter.upper(), False, is_bracketed)


def _before(text: str, start: int) -> str:
    """What precedes a mention in its own sentence, at most CONTEXT_CHARS."""
    window = text[max(0, start - CONTEXT_CHARS) : start]
    ends = [found.end() for found in SENTENCE_END.finditer(window)]
    return window[ends[-1] :] if ends else window


def _last_clause(before: str) -> str:
    ends = [found.end() for found in CLAUSE_END.finditer(before)]
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
    if JOINED.fullmatch(gap):
        return True
    if right.is_text and not left.is_text:
        return bool(BEFORE_OWN_TEXT.fullmatch(gap))
    after = text[right.end : right.end + 1]
    return bool(ENUMERATED.fullmatch(gap)) and after in {"", ".", ":", "\n"}


def _weigh(text: str, group: Sequence[Mention], previous_end: int, next_start: int) -> Statement | None:
    start, end = group[0].start, max(mention.end for mention in group)
    sentence_before = _before(text, start)
    before = text[max(previous_end, start - len(sentence_before)) : start]
    after = text[end : min(next_start, end + CONTEXT_CHARS)]
    stop = SENTENCE_END.search(after)
    sentence_after = after[: stop.start()] if stop else after
    clause_end = CLAUSE_END.search(after)
    predicate = after[: clause_end.start()] if clause_end else after

    denials = len(NEGATION.findall(_last_clause(before)))
    judged = PREDICATE.match(predicate)
    if judged:
        denials += len(NEGATION.findall(predicate))
    letters = {mention.letter for mention in group}
    letter = letters.pop() if len(letters) == 1 else None
    is_whole = not re.search(r"\w", sentence_before) and not re.search(r"\w", sentence_after)
    is_whole = is_whole and (next_start >= len(text) or bool(stop))
    if stop and stop[0] == "?" and not is_whole:
        return None
    if judged:
        # "B is correct" declares; "B is where she left it" only speaks of it, unless cued as the answer.
        declares = bool(APPROVAL.search(predicate))
    else:
        declares = is_whole or bool(REASON.match(after) and not group[0].is_text)
    declares = declares or bool(DECLARING.search(before))
    opens_reply = start < CONTEXT_CHARS and not re.search(r"\w", text[:start])
    if declares:
        strength = DECLARED
    elif all(mention.is_text for mention in group):
        strength = IN_WORDS
    elif group[0].is_bracketed or NAMING.search(before) or opens_reply:
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


def _whole_sentences(reply: str) -> str:
    """The sentences that answer, each once: echoed questions, prompt lines and option lists are passed over.

    Words without an end are kept where there is nothing else; behind whole sentences the token limit cut them off.
    """
    lines = [line for line in _without_option_list(reply.replace("*", "")).split("\n") if not PROMPT_LINE.match(line)]
    text = "\n".join(lines)
    option_a = INLINE_OPTION_A.search(text)
    if option_a and INLINE_OPTION_B.search(text, option_a.end()):
        text = text[: option_a.start()]
    text = "".join(" " if unicodedata.category(char) == "Cc" and char != "\n" else char for char in text)
    question = ""
    kept: dict[str, str] = {}
    for sentence in _sentences(text):
        words = LABEL.sub("", " ".join(sentence.replace("\u200b", "").replace("\ufeff", "").split()))
        if not re.search(r"\w", words):
            continue
        words = _without_repetition(words)
        end = words.rstrip("\"')]")[-1:]
        if end == "?":
            question = question or words
        elif end in ".!。！？":
            kept.setdefault(words.lower(), words)
        elif not kept:
            return words
    return " ".join(kept.values()) or question


def _sentences(text: str) -> list[str]:
    sentences, start = [], 0
    for stop in SENTENCE_STOP.finditer(text):
        if stop[0] == "." and ABBREVIATION.search(text[max(start, stop.end() - CONTEXT_CHARS) : stop.end()]):
            continue
        sentences.append(text[start : stop.end()])
        start = stop.end()
    return [*sentences, text[start:]]


def _without_repetition(sentence: str) -> str:
    """Collapse words that loop, as a model does that cannot stop; "very very" and "no, no" stay."""
    words = sentence.split()
    for period in range(1, LONGEST_LOOP_WORDS + 1):
        kept: list[str] = []
        position = 0
        while position < len(words):
            end = position + period
            while end < len(words) and _same_word(words[end], words[end - period]):
                end += 1
            repeats = (end - position) // period
            if repeats >= (2 if period >= 3 else 3):
                kept += words[position : position + period]
                # What is left of a loop that the token limit cut off belongs to the loop.
                position = end if end == len(words) else position + repeats * period
            else:
                kept.append(words[position])
                position += 1
        words = kept
    return " ".join(words)


def _same_word(one: str, other: str) -> bool:
    return one.strip(".,;:!?").lower() == other.strip(".,;:!?").lower()
