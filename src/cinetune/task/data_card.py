"""What a folder of questions and clips says of itself: which data at which commit, how many rows, under which licence.

`download` and `import` write <folder>/card.json, DVC pins it with the folder, and every stage takes the data's name
from it, or holds data.name against it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cinetune.errors import InputError
from cinetune.files import read_json
from cinetune.params import DataParams, Params
from cinetune.task import description

CARD = "card.json"
# What this repository pins at OWN_ROOT.
MINI, OWN_ROOT = "CinePile-mini", "data"
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
        return " at commit ".join(filter(None, (self.name, self.commit))) or "question files"


def read(root: str | Path) -> DataCard | None:
    """None for a folder without a card, which neither `download` nor `import` has filled."""
    path = Path(root) / CARD
    if not path.is_file():
        return None
    try:
        return DataCard(**read_json(path))
    except (ValueError, TypeError):
        raise InputError(f"{str(path)!r} is damaged: run the command that filled the folder again.") from None


def name_of(data: DataParams) -> str:
    """What reports, runs and versions call the data: data.name, or what the folder says of itself."""
    return data.name or _own_name(data.root)


def named(params: Params) -> Params:
    """The params as they are kept and logged, where the folder may be gone or hold something else one day."""
    return params.override("data", {"name": name_of(params.data)})


def check(data: DataParams) -> None:
    """Raises InputError where data.name calls the data of a folder what this says that they are not."""
    about, own = read(data.root), _own_name(data.root)
    is_known = about is not None or (Path(data.root) / description.FILE).is_file()
    is_named = about is not None and about.name != ""
    if data.name and ((is_named and _plain(data.name) != _plain(own)) or (is_known and data.name == MINI != own)):
        says = f"{data.root}/{CARD} says that the folder holds"
        told = f"{says} {about.source}" if about else f"{data.root!r} holds a task of its own"
        raise InputError(f"data.name is {data.name!r}, but {told}: set data.name to {own}, or leave it empty.")


def _own_name(root: str) -> str:
    about, folder = read(root), Path(root).resolve().name
    if about is not None:
        return about.name or folder
    if (Path(root) / description.FILE).is_file():
        return description.of_folder(root).name or folder
    return MINI if folder == OWN_ROOT else folder


def _plain(label: str) -> str:
    return re.sub(r"[^a-z0-9]", "", label.lower())
