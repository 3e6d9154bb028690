"""From a model's words to an option, as a fair reader would take them.

Nothing here guesses: text that names no option, or several, gives None.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from cinetune.answers.folding import reply_to_read
from cinetune.answers.statements import RETRACTION, Force, Statement, read_statements
from cinetune.task.questions import LETTERS

REFUSAL = re.compile(
    r"\b(?:none|neither|unclear|unknown|unable to|n/a|don't know|impossible to|(?:all|both) of (?:the|them)"
    r"|no (?:idea|answer|option|choice)|can(?:not|'t) (?:be|say|tell|determine|answer|know|choose|decide|see)"
    r"|not (?:sure|certain|enough|clear|know|given|mentioned|provided|possible))\b",
    re.IGNORECASE,
)
ONLY_LETTERS = re.compile(r"\W*[A-E]{2,5}\W*")


def parse_lenient(text: str, choices: Sequence[str]) -> str | None:
    """The letter that a fair reader takes from any wording, or None when no option, or several, are meant.

    Options may be named by letter, by text or by place. The last explicit answer wins, and only another or a
    correction moves it; denied options do not count; a letter that this question does not have is no answer.
    Time is linear in the length of the text.
    """
    letter = _verdict(read_statements(reply_to_read(text, choices), choices))
    return letter if letter and letter in LETTERS[: len(choices)] else None


def is_abstention(text: str, choices: Sequence[str]) -> bool:
    """Does the text speak but decline to choose ("None", "I cannot tell", "A or B", "AB")?

    Silence, a letter that does not exist and words beside the point are unparsed, not abstentions.
    """
    if parse_lenient(text, choices) is not None:
        return False
    reply = reply_to_read(text, choices)
    named = {statement.letters for statement in read_statements(reply, choices) if statement.is_affirmed}
    undecided = len(named) > 1 or any(len(letters) > 1 for letters in named)
    return undecided or bool(ONLY_LETTERS.fullmatch(reply) or REFUSAL.search(reply))


def _verdict(statements: Sequence[Statement]) -> str | None:
    """The last explicit answer that was not taken back; failing one, the only option that is most clearly meant."""
    standing: list[Statement] = []
    for statement in statements:
        if statement is RETRACTION:
            standing = []
        elif not statement.is_affirmed:
            standing = [earlier for earlier in standing if not set(earlier.letters) <= set(statement.letters)]
        elif statement.force == Force.CORRECTED:
            standing = [statement]
        elif statement.force > Force.EXPLAINED:
            standing.append(statement)
    if not standing:
        return None
    strongest = max(min(statement.force, Force.ANSWER) for statement in standing)
    heard = [statement.letters for statement in standing if min(statement.force, Force.ANSWER) == strongest]
    letters = heard[-1] if strongest == Force.ANSWER else _only(heard)
    last = standing[-1]
    is_open = letters is None or len(letters) > 1
    if is_open and last.force >= Force.JUDGED and all(last.letters in earlier for earlier in heard):
        letters = last.letters  # several were declared together, and a later word chooses among them
    return letters if letters and len(letters) == 1 else None


def _only(letters: Sequence[str]) -> str | None:
    return letters[0] if len(set(letters)) == 1 else None
