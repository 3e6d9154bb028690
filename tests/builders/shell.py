"""The commands that documents show."""

from __future__ import annotations

import re
import shlex
from pathlib import Path


def blocks(path: Path) -> list[tuple[str, str]]:
    """What each block of shell commands needs, and the commands."""
    found = re.findall(r"(?:<!-- needs: ([^\n]*?) -->\n)?```bash\n(.*?)```", path.read_text(encoding="utf-8"), re.S)
    return [(needs, code) for needs, code in found]


def commands(path: Path) -> list[list[str]]:
    """Each command of a document's blocks as words."""
    return [words for _, code in blocks(path) for words in commands_of(code)]


def commands_of(code: str) -> list[list[str]]:
    """Each command of a block as words; pipes and loops apart."""
    plain = re.sub(r"(^|\s)#[^\n]*", r"\1", re.sub(r"\\\n\s*", " ", code))
    lexer = shlex.shlex(plain.replace("\n", " ; "), posix=True, punctuation_chars=";|&")
    lexer.whitespace_split = True
    found: list[list[str]] = [[]]
    for word in lexer:
        if set(word) <= set(";|&"):
            found.append([])
        elif found[-1] or not is_before_a_command(word):
            found[-1].append(word)
    return [words for words in found if words]


def is_before_a_command(word: str) -> bool:
    return word == "do" or re.fullmatch(r"[A-Z_]+=\S*", word) is not None
