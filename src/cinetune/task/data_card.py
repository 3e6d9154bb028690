"""What a folder of questions and clips says of itself: which data at which commit, how many rows, under which licence.

`download` writes <folder>/card.json, DVC pins it with the folder, and every stage holds data.name against it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cinetune.errors import InputError
from cinetune.files import read_json

CARD = "card.json"
MINI = "CinePile-mini"
UNKNOWN_LICENCE = "unknown"


@dataclass(frozen=True)
class DataCard:
    """`name`, `version` and `commit` are empty for question files, whose `licence` is not known; `rows` by split."""

    name: str = ""
    version: str = ""
    commit: str = ""
    licence: str = UNKNOWN_LICENCE
    rows: Mapping[str, int] = field(default_factory=dict)

    @property
    def source(self) -> str:
        """Where the questions are from, in words."""
        return f"{self.name} at commit {self.commit}" if self.name else "question files"


def read(root: str | Path) -> DataCard | None:
    """None for a folder without a card, which `download` has not filled."""
    path = Path(root) / CARD
    if not path.is_file():
        return None
    try:
        return DataCard(**read_json(path))
    except (ValueError, TypeError):
        raise InputError(f"{str(path)!r} is damaged: run `download` or `dvc checkout` again.") from None


def check(label: str, root: str | Path) -> None:
    """Raises InputError where `data.name` calls the data of a folder what its card says that they are not."""
    about = read(root)
    if about is None:
        return
    said = f"data.name is {label!r}, but {root}/{CARD} says that the folder holds {about.source}"
    if about.name and _plain(label) != _plain(about.name):
        raise InputError(f"{said}: set data.name to {about.name}.")
    if not about.name and label == MINI:
        raise InputError(f"{said}: set data.name to what they are.")


def _plain(label: str) -> str:
    return re.sub(r"[^a-z0-9]", "", label.lower())
