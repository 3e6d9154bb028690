"""What a reader is shown of a model's words: its own turn, whole sentences, no echo, no repetition."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from cinetune.answers.folding import without_option_list
from cinetune.answers.grammar.mentions import CONTEXT_CHARS
from cinetune.answers.lenient import parse_lenient
from cinetune.answers.reply import reply_of
from cinetune.task.description import LETTERS


@dataclass(frozen=True)
class CleanAnswer:
    """What a reader is shown: the words of the answer and, for multiple choice, the option's letter."""

    answer: str
    choice: str | None


ABBREVIATION = re.compile(
    r"(?:\b(?:mr|mrs|ms|dr|st|jr|sr|prof|vs|etc|e\.g|i\.e|no|lt|sgt|capt)|\b[A-Z])\.$", re.IGNORECASE
)
SENTENCE_STOP = re.compile(r"[.!?]+[\"')\]]*(?=\s|$)|[。！？]+|\n")
LABEL = re.compile(r"^(?:[-•#>]\s+|(?:the\s+)?(?:final\s+)?answer\s*:\s*|assistant\s*:\s*|user\s*:\s*)+", re.IGNORECASE)
PROMPT_LINE = re.compile(r"^\W*(?:question|options|choices|subtitles?|video|note|instructions?)\s*:", re.IGNORECASE)
INLINE_OPTION_A, INLINE_OPTION_B = re.compile(r"(?<!\w)A\) "), re.compile(r"(?<!\w)B\) ")
LONGEST_LOOP_WORDS = 12


def clean(text: str, choices: Sequence[str] | None) -> CleanAnswer:
    """What to show a user: the chosen option's text and letter, or an open answer's whole sentences.

    With choices, an unreadable reply gives an empty answer and None. Without (None), the model's own words
    are kept; echo, turn markers, option lists, special tokens and repetitions are not.
    """
    if choices is None:
        return CleanAnswer(_whole_sentences(reply_of(text)), None)
    letter = parse_lenient(text, choices)
    if letter is None:
        return CleanAnswer("", None)
    return CleanAnswer(" ".join(choices[LETTERS.index(letter)].split()), letter)


def _whole_sentences(reply: str) -> str:
    """The sentences that answer, each once: echoed questions, prompt lines and option lists are passed over.

    Words without an end are kept where there is nothing else; behind whole sentences the token limit cut them off.
    """
    lines = [line for line in without_option_list(reply.replace("*", "")).split("\n") if not PROMPT_LINE.match(line)]
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
