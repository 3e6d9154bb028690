"""A model's own turn in what it generated.

A model that has not learned to stop goes on in the template's words, with a turn that it invents: its reply ends where
one of the template's own markers stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

from cinetune.answers.letters import span
from cinetune.task import prompts
from cinetune.task.description import CINEPILE, INSTRUCTION, LETTERS, SILENT_INSTRUCTION

SPECIAL_TOKENS = re.compile(r"<s>|<pad>|<unk>|<video>|<image>|<\|[^|<>\s]{1,40}\|>|\[/?INST\]", re.IGNORECASE)
END_OF_TEXT = re.compile(r"</s>|<eos>|<end_of_turn>|<\|(?:endoftext|im_end|eot_id|eom_id|end)\|>", re.IGNORECASE)
ROLE = re.compile(r"\b(?P<role>USER|ASSISTANT)[ \t]*:")
ASKING, ANSWERING = "USER", "ASSISTANT"
# How the templates of other models begin a turn: with a token, or with a role at the head of a line, which stays alone
# there where tokens were left out.
TURN = re.compile(
    r"<\|(?:im_start|start_header_id)\|>[ \t]*(?P<named>\w+)[ \t]*(?:<\|end_header_id\|>)?"
    r"|<start_of_turn>[ \t]*(?P<short>\w+)"
    r"|<\|(?P<token>user|human|system|assistant|model)\|>"
    r"|(?P<bracket>\[/?INST\])"
    r"|^[#>*_ \t]*(?P<word>user|human|assistant|gpt|model|bot)[*_ \t]*(?::[*_]*|$)"
    r"|^#+[ \t]*(?P<heading>Instruction|Input|Response)[ \t]*:",
    re.MULTILINE | re.IGNORECASE,
)
ANSWERING_ROLES = ("assistant", "model", "gpt", "bot", "response", "[/inst]")
# Words that a reply may use too count as markers only where they stand as in the template.
BEGINNING = re.compile(
    r"^[^\w\n]*(?:(?:question(?: \d+)?|q\d{0,2})[ \t]*:|(?:subtitles|frames)[ \t]*:[^\w\n]*$)",
    re.IGNORECASE | re.MULTILINE,
)
QUESTION = re.compile(r"\bQuestion(?: \d+)?[ \t]*:")
# How the instructions begin that come with this project.
INSTRUCTIONS = tuple(told.partition(",")[0] for told in (CINEPILE.told, INSTRUCTION, SILENT_INSTRUCTION))
REMINDERS = (prompts.REMINDER, prompts.OPEN_REMINDER)
LITERAL = re.compile("|".join(map(re.escape, (*INSTRUCTIONS, *REMINDERS))))
# What shows that a question in the middle of a line is one of the template's.
ASKED = (*REMINDERS, prompts.ROLE, "- A)", "\nA)")
LISTED_OPTION = re.compile(rf"^[ \t]*(?:[-•*][ \t]*)?\(?([{span(LETTERS)}])[ \t]*[).:][ \t]*\S")
PREAMBLE = re.compile(
    r"\W*(?:sure|ok(?:ay)?|certainly|of course|here(?:'s| is| are)\b[^\n]*|let(?:'s| me| us)\b[^\n]*)\W*", re.I
)


def reply_of(text: str) -> str:
    """The model's own turn: without the echoed prompt, later invented turns and special tokens."""
    parts = (SPECIAL_TOKENS.sub(" ", part) for part in END_OF_TEXT.split(in_our_roles(text)))
    # An echoed question may have an end of its own.
    return next((reply for part in parts if part.strip() and (reply := _answered(part)).strip()), "")


def _answered(written: str) -> str:
    """What is said up to an end of text; nothing where only something was asked."""
    own = without_invented_turns(written)
    roles = list(ROLE.finditer(own))
    if not roles:
        return _without_second_question(own)
    # The prompt came first: the reply is what the answering role says.
    answers = [written[role.end() :] for role in roles if role["role"] == ANSWERING]
    replies = (without_invented_turns(answer) for answer in answers)
    return next((reply for reply in replies if reply.strip() and not ROLE.match(reply.lstrip())), "")


def in_our_roles(text: str) -> str:
    """A text with the turns of other models' templates under the roles of ours; as it is where it holds no such turns.

    A role that answers, without one that asks before it, is only a reply's heading.
    """
    is_answering = [str(turn[turn.lastgroup or 0]).lower() in ANSWERING_ROLES for turn in TURN.finditer(text)]
    first = next((turn for turn, answers in zip(TURN.finditer(text), is_answering, strict=True) if not answers), None)
    if first is None or (not text[: first.start()].strip() and not any(is_answering)):
        return text
    roles = iter(is_answering[is_answering.index(False) :])
    return text[: first.start()] + TURN.sub(
        lambda _: f"\n{ANSWERING if next(roles) else ASKING}: ", text[first.start() :]
    )


def without_invented_turns(text: str) -> str:
    """A text up to the first of the template's markers; all of it where no reply stands before that."""
    first = min(_markers(text), default=len(text))
    head = text[:first]
    lines = [line for line in head.splitlines() if line.strip()]
    is_list = len(lines) > 1 and all(LISTED_OPTION.match(line) for line in lines)
    return text if is_list or not head.strip() or PREAMBLE.fullmatch(head) else head


def _markers(text: str) -> Iterator[int]:
    """Where the template's markers stand."""
    yield from (match.start() for pattern in (BEGINNING, ROLE, LITERAL) if (match := pattern.search(text)))
    last_sign = max(text.rfind(sign) for sign in ASKED)
    question = QUESTION.search(text)
    if question and question.start() < last_sign:
        yield question.start()


def _without_second_question(text: str) -> str:
    """An echoed question and what was said to it, without the next one."""
    starts = [match.start() for match in islice(BEGINNING.finditer(text), 2)]
    return text[: starts[1]] if len(starts) == 2 else text
