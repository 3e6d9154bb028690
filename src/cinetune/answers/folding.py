"""One form of a reply to read: look-alike letters, quotes, markdown, JSON and space folded; line breaks stay."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from cinetune.answers.letters import of, span
from cinetune.answers.reply import LISTED_OPTION, reply_of
from cinetune.task.description import LETTERS

# Greek, Cyrillic, Cherokee and Lisu letters that look like Latin ones; NFKC folds full-width and circled ones.
LOOK_ALIKES = str.maketrans(
    "ıİΑΒΕАВСЕасеԁᎪᏴᏟᎠᎬꓮꓐꓚꓓꓰΗНΙІЈᎻᎫꓝꓖꓧꓲꓙ’‘“”«»—–−✅☑✔❌✘✖§",
    'iIABEABCEacedABCDEABCDEHHIIJHJFGHIJ\'\'""""---✓✓✓✗✗✗ ',
)
# The Russian "but" is a word of one letter.
CYRILLIC_OR_GREEK_WORD = re.compile(r"[\u0370-\u03ff\u0400-\u04ff]{2,}|(?<=, )а(?= )")
# The scripts of India and South East Asia, which spell with combining marks.
SPELLED_WITH_MARKS = re.compile(r"[\u0900-\u0eff]")
THOUGHT = re.compile(r"<think(?:ing)?>[^<]*</think(?:ing)?>", re.IGNORECASE)
TAG = re.compile(r"</?[a-z_]{2,20}>", re.IGNORECASE)
LATEX = re.compile(r"\\(?:text|textbf|mathbf|mathrm|rm|bf)\b|\\[()\[\]]")
JSON_COMMA, JSON_KEY = re.compile(r"(?<=[\"'\d])\s*,\s*(?=[\"']\w+[\"']\s*:)"), re.compile(r"[\"'](\w{1,30})[\"']\s*:")
CHECKED, UNCHECKED = re.compile(r"\[[xX]\]"), re.compile(r"\[ \]")
EAST_ASIAN = r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]"
BESIDE = rf"[{span(LETTERS)}{span(LETTERS).lower()}0-9]"
BESIDE_EAST_ASIAN = re.compile(rf"(?<={EAST_ASIAN})(?={BESIDE})|(?<={BESIDE})(?={EAST_ASIAN})")


def reply_to_read(text: str, choices: Sequence[str]) -> str:
    """The model's own turn in one form, without private reasoning and without an echo of the option list."""
    reply = LATEX.sub(" ", TAG.sub("\n", THOUGHT.sub("\n", reply_of(text))))
    reply = UNCHECKED.sub("✗", CHECKED.sub("✓", reply))
    reply = JSON_KEY.sub(r"\1:", JSON_COMMA.sub("\n", reply))
    own = span(of(choices))
    # A model that does not stop goes on to ask itself.
    asked_again = rf"(\banswer\W{{1,4}}[{own}]\b[^\n]*)\n\s*(?:question|q)\s*:.*"
    reply = re.sub(asked_again, r"\1", reply, flags=re.IGNORECASE | re.DOTALL)
    folded = re.sub(rf"^A:[ ]*(?=\(?[{own}]\)?\.?$)", "Answer: ", fold(reply), flags=re.MULTILINE)
    return _without_echo(folded, choices)


def fold(text: str) -> str:
    """NFKC, look-alikes of letters outside Greek and Cyrillic words, no markdown, single spaces."""
    folded = unicodedata.normalize("NFKC", text)
    pieces, start = [], 0
    for word in CYRILLIC_OR_GREEK_WORD.finditer(folded):
        pieces += [folded[start : word.start()].translate(LOOK_ALIKES), word[0]]
        start = word.end()
    folded = "".join([*pieces, folded[start:].translate(LOOK_ALIKES)])
    folded = "".join(
        char
        for char in folded
        if unicodedata.category(char) not in {"Cf", "Mn"} or char == "\u0301" or SPELLED_WITH_MARKS.match(char)
    )
    folded = re.sub(r"\$(?=\d[\d.,]*(?![\d.,]*\$))", "€", folded)  # an amount, not LaTeX
    folded = re.sub(r"[*_`#$\\|~]+", " ", folded.replace("\\boxed", " boxed ").replace(" & ", " and "))
    folded = BESIDE_EAST_ASIAN.sub(" ", re.sub(r"\.{2,}", " , ", folded))
    return "\n".join(" ".join(line.split()) for line in folded.splitlines()).strip()


def without_option_list(text: str) -> str:
    """Drop lines that repeat the question's options: two or more in a row with rising letters."""
    lines = text.split("\n")
    letters = [found[1] if (found := LISTED_OPTION.match(line)) else "" for line in lines]
    return _without_runs(lines, letters)


def _without_echo(text: str, choices: Sequence[str]) -> str:
    """Drop an echoed option list; lines that say something else of each option stay."""
    own = of(choices)
    texts = {letter: _plain(choice, own) for letter, choice in zip(own, choices, strict=True)}
    lines = text.split("\n")
    letters = []
    for line in lines:
        found = re.match(rf"^(?:[-•] )?\(?([{span(own)}]) ?[).:] ?(.+)$", line)
        listed = texts.get(found[1]) if found else None
        words = _plain(found[2], own) if found else ""
        letters.append(found[1] if found and listed and words == listed else "")
    return _without_runs(lines, letters)


def _plain(text: str, own: str) -> str:
    words = re.sub(rf"^\(?[{span(own)}][).:] ", "", fold(" ".join(text.split())))
    return words.strip(" .!?\"'").lower()


def _without_runs(lines: Sequence[str], letters: Sequence[str]) -> str:
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
