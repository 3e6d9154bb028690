"""A question as the text of a chat message, and read back from one.

Written is the prompt's own layout: instruction and subtitles before the pictures, question, options and reminder
behind them. That is read back exactly. In other texts options are lines labelled A, B, C in one style, each on its own;
without them a text is an open question.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from dataclasses import dataclass

from cinetune.task import prompts
from cinetune.task.description import CINEPILE, Task

MARK = "Question: "
FRAMES_LINE = "\nFrames:"
# "A) x", "(A) x", "A. x", "- A: x", "**A.** x": what stands around the letter is the style.
LABEL = re.compile(r"[ \t]*((?:[-*•] +)?[(\[]?\**)([A-Za-z])(\**[)\].:]\**)[ \t]+(?=\S)")
SUBTITLES = re.compile(r"^[^\w\n]*subtitles?[^\w\n]*$", re.IGNORECASE | re.MULTILINE)
QUESTION = re.compile(r"^[^\w\n]*question[ *]*:[ *]*", re.IGNORECASE | re.MULTILINE)
# What announces a list of options.
HEADING = re.compile(r"\n[^\w\n]*(?:answer )?(?:options|choices)[^\w\n]*$", re.IGNORECASE)
PARAGRAPH = re.compile(r"\n[ \t]*\n")


@dataclass(frozen=True)
class AskedText:
    """What a message's text asks; choices are None where an answer in words is wanted."""

    subtitles: str
    question: str
    choices: tuple[str, ...] | None


def write(subtitles: str, question: str, choices: Sequence[str] | None, task: Task = CINEPILE) -> tuple[str, str]:
    """The text before the pictures and the text behind them.

    Line breaks of a question are kept unless its lines would be read as something else, an option for instance.
    """
    start = prompts.prefix(prompts.spoken(subtitles), task).removeprefix(f"{prompts.ASKING} ")
    before, _, middle = start.partition(prompts.VIDEO)
    before, middle = before.rstrip(), middle.lstrip()
    after = middle + _written(question, choices, task)
    asked = read(f"{before}\n{after}")
    meant = [prompts.neutralise(text.strip()) for text in (question, *(choices or ()))]
    if [asked.question, *(asked.choices or ())] != meant:
        after = middle + _written(_on_a_line(question), choices and [_on_a_line(choice) for choice in choices], task)
    return before, after


def _written(question: str, choices: Sequence[str] | None, task: Task) -> str:
    return prompts.suffix(question, choices, task).removesuffix(prompts.ROLE)[:-1]


def _on_a_line(text: str) -> str:
    return " ".join(text.split())


def read(text: str) -> AskedText:
    """What a text asks; time is linear in its length.

    A question stands behind the last `Question:` at the start of a line; failing that, where there are subtitles, it is
    the last paragraph or, of one, its last line; failing these it is all that stands before the options. Subtitles
    stand below a line that says so and nothing else. What is before them is an instruction, which the prompt has of
    its own, and so is what follows the options.
    """
    text = text.strip()
    return _read_own(text) or _read_other(text.replace("\r\n", "\n"))


def _read_own(text: str) -> AskedText | None:
    """None for what `write` has not written."""
    before, mark, asked = f"\n{text}".rpartition(f"\n{MARK}")
    if not mark:
        return None
    if asked.endswith(f"\n{prompts.OPEN_REMINDER}"):
        return AskedText(_own_subtitles(before), asked.removesuffix(f"\n{prompts.OPEN_REMINDER}"), None)
    if not asked.endswith(f"\n{prompts.REMINDER}"):
        return None
    question, *choices = _split(asked.removesuffix(f"\n{prompts.REMINDER}"))
    return AskedText(_own_subtitles(before), question, tuple(choices)) if choices else None


def _split(asked: str) -> list[str]:
    """A question and its options, between the labels in their order."""
    parts = []
    for letter in string.ascii_uppercase:
        part, label, rest = asked.partition(f"\n- {letter}) ")
        if not label:
            break
        parts.append(part)
        asked = rest
    return [*parts, asked]


def _own_subtitles(before: str) -> str:
    heading = SUBTITLES.search(before)
    if heading is None:
        return ""
    words = before[heading.end() :]
    return (words.rpartition(FRAMES_LINE)[0] if FRAMES_LINE in words else words).strip("\n")


def _read_other(text: str) -> AskedText:
    before, choices = _options(text)
    before = HEADING.sub("", before.rstrip()) if choices else before
    marks = list(QUESTION.finditer(before))
    heading = SUBTITLES.search(before)
    if marks and before[marks[-1].end() :].strip():
        start, question = marks[-1].start(), before[marks[-1].end() :]
    elif heading is not None:
        gaps = list(PARAGRAPH.finditer(before.rstrip(), heading.end()))
        start = gaps[-1].end() if gaps else before.rstrip().rfind("\n") + 1
        question = before[start:]
    else:
        start, question = 0, before
    subtitles = before[heading.end() : start] if heading is not None and heading.end() <= start else ""
    return AskedText(subtitles.strip("\n"), question.strip(), choices)


def _options(text: str) -> tuple[str, tuple[str, ...] | None]:
    """What stands before the last list of options, and the options; all of it and None where there is no list."""
    lines = text.split("\n")
    found: tuple[int, list[str]] | None = None
    start, style, choices = 0, ("", "", False), list[str]()
    for number, line in enumerate([*lines, "end"]):
        label = LABEL.match(line) if number < len(lines) else None
        this = (label[1], label[3], label[2].isupper()) if label else ("", "", False)
        if label and choices and this == style and label[2].upper() == string.ascii_uppercase[len(choices) % 26]:
            choices.append(line[label.end() :].strip())
            continue
        if line.strip() or number == len(lines):
            if len(choices) > 1:
                found = start, choices
            choices = []
        if label and label[2].upper() == "A":
            start, style, choices = number, this, [line[label.end() :].strip()]
    if found is None:
        return text, None
    return "\n".join(lines[: found[0]]), tuple(found[1])
