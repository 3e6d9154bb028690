"""From a model's words to an option, as a fair reader would take them.

Nothing here guesses: text that names no option, or several, gives None.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from cinetune.answers import letters
from cinetune.answers.folding import reply_to_read
from cinetune.answers.grammar.statements import RETRACTION, Force, Statement, read_statements

REFUSAL = re.compile(
    r"\b(?:none|neither|unclear|unknown|unable to|n/a|don't know|impossible to|(?:all|both) of (?:the|them)"
    r"|no (?:idea|answer|option|choice)|can(?:not|'t) (?:be|say|tell|determine|answer|know|choose|decide|see)"
    r"|not (?:sure|certain|enough|clear|know|given|mentioned|provided|possible))\b",
    re.IGNORECASE,
)


def parse_lenient(text: str, choices: Sequence[str]) -> str | None:
    """The letter that a fair reader takes from any wording, or None when no option, or several, are meant.

    Options may be named by letter, by text or by place. The last explicit answer wins, and only another or a
    correction moves it; denied options do not count; a letter that this question does not have is no answer.
    Time is linear in the length of the text.
    """
    letter = _verdict(read_statements(reply_to_read(text, choices), choices))
    return letter if letter and letter in letters.of(choices) else None


def is_abstention(text: str, choices: Sequence[str]) -> bool:
    """Does the text speak but decline to choose ("None", "I cannot tell", "A or B", "AB")?

    Silence, a letter that does not exist and words beside the point are unparsed, not abstentions.
    """
    if parse_lenient(text, choices) is not None:
        return False
    reply = reply_to_read(text, choices)
    named = {statement.letters for statement in read_statements(reply, choices) if statement.is_affirmed}
    undecided = len(named) > 1 or any(len(together) > 1 for together in named)
    own = letters.of(choices)
    only_letters = re.fullmatch(rf"\W*[{letters.span(own)}]{{2,{max(2, len(own))}}}\W*", reply)
    return undecided or bool(only_letters or REFUSAL.search(reply))


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
    meant = heard[-1] if strongest == Force.ANSWER else _only(heard)
    last = standing[-1]
    is_open = meant is None or len(meant) > 1
    if is_open and last.force >= Force.JUDGED and all(last.letters in earlier for earlier in heard):
        meant = last.letters  # several were declared together, and a later word chooses among them
    return meant if meant and len(meant) == 1 else None


def _only(heard: Sequence[str]) -> str | None:
    return heard[0] if len(set(heard)) == 1 else None
