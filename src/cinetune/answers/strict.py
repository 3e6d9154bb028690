"""The published protocol's parser, and the likeliest letter."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from cinetune.answers import letters
from cinetune.answers.reply import in_our_roles, without_invented_turns
from cinetune.task.description import LETTERS


def parse_strict(text: str, choices: Sequence[str], gold_index: int | None = None) -> str | None:
    """The letter that the published protocol credits, or None where it would score any answer as wrong.

    An invented turn behind the reply, asterisks and outer space are dropped, case is ignored. Read are: a lone
    letter; the first `Answer:` with a letter after it and an optional `)` and `.`, where the next words up to a
    line's end, if there are any, must be that option's own text; else a whole reply that equals an option's text.
    The published rule compares only with the right answer's text. As text that contradicts its own letter gives None
    here, `parse_strict(...) == gold` is that rule exactly; where two options share a text, `gold_index` (0-based)
    says which one the rule looks at.
    """
    reply, own = without_invented_turns(in_our_roles(text)).replace("*", "").strip(), letters.of(choices)
    if len(reply) == 1 and reply.upper() in own:
        return reply.upper()
    found = re.search(rf"answer:\s*([{letters.span(own)}])", reply, re.IGNORECASE)
    if found:
        index = LETTERS.index(found[1].upper())
        rest = reply[found.end() :].removeprefix(")").removeprefix(".").lstrip()
        words = rest.partition("\n")[0].strip().lower()
        if words in ("", choices[index].lower()):
            return LETTERS[index]
        return None
    same = [index for index, choice in enumerate(choices) if choice.lower() == reply.lower()]
    if gold_index in same:
        return LETTERS[gold_index]
    return LETTERS[same[0]] if same and reply else None


def most_probable(probabilities: Sequence[float]) -> str | None:
    """The letter of the largest share, the first of equals; None where one is not a number."""
    if any(math.isnan(share) for share in probabilities):
        return None
    return LETTERS[max(range(len(probabilities)), key=lambda place: probabilities[place])]
