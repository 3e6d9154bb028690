"""The letters of a question's options, as regular expressions read them."""

from __future__ import annotations

from collections.abc import Sequence

from cinetune.task.description import LETTERS

# So many are read at least: some are letters that a question does not have, and "F" is not passed over for a later one.
MIN_READABLE = 8


def of(choices: Sequence[str]) -> str:
    """Those that a question has."""
    return LETTERS[: len(choices)]


def readable(choices: Sequence[str]) -> str:
    """Those that a reply may be taken to name."""
    return LETTERS[: max(len(choices), MIN_READABLE)]


def span(letters: str) -> str:
    """As a range within the brackets of a regular expression; of no letters, one that nothing is in."""
    return f"{letters[0]}-{letters[-1]}" if letters else "\\x00"
