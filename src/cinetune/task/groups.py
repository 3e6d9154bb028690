"""What is never split: the films, cameras or patients that clips are of, told apart by name."""

from __future__ import annotations

import functools
import logging
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import pandas as pd
import pyarrow.parquet

from cinetune.errors import InputError
from cinetune.task import description
from cinetune.task.checks import is_absent, is_whole, named
from cinetune.task.description import Task

logger = logging.getLogger(__name__)

MAX_GROUPS_NAMED = 5


class Grouped(Protocol):
    """A clip with its group's name."""

    @property
    def group(self) -> str: ...


Clip = TypeVar("Clip", bound=Grouped)


def name_of(row: Mapping[str, Any], task: Task) -> str:
    """The name of a row's group, `named` as it is; a clip of no group is one of its own."""
    name = row["group"]
    if is_absent(name):
        return str(row["clip_id"])
    return f"{name} ({int(row['year'])})" if "year" in task.names else str(name)


@functools.cache
def group_key(group: str) -> str:
    """The same for one group, whatever Unicode form, case and spaces its name is written in."""
    return " ".join(unicodedata.normalize("NFKC", group).casefold().split())


def spellings(groups: Iterable[str]) -> dict[str, str]:
    """By key the first of each group's spellings, in their order."""
    found: dict[str, str] = {}
    for group in sorted(set(groups)):
        found.setdefault(group_key(group), group)
    return found


def keys_of(table: pd.DataFrame, task: Task) -> list[str | None]:
    """The key of each row's group; None where the row tells none."""
    columns = [column for name in ("clip_id", "group", "year") if (column := task.column(name)) in table.columns]

    def key(row: dict[str, Any]) -> str | None:
        name = row["group"]
        is_told = isinstance(name, str) and ("year" not in task.names or is_whole(row["year"]))
        return group_key(name_of(row, task)) if is_told or (is_absent(name) and not task.needs("group")) else None

    return [key(named(row, task)) for row in table[columns].to_dict("records")]


def groups_of(root: str | Path, split: str) -> set[str]:
    """Keys of the groups that a split has questions about; none where it is not there or cannot be read."""
    path, task = Path(root) / "questions" / f"{split}.parquet", description.of_folder(root)
    try:
        there = pyarrow.parquet.read_schema(path).names
        columns = [column for name in ("clip_id", "group", "year") if (column := task.column(name)) in there]
        table = pd.read_parquet(path, columns=columns)
    except (OSError, ValueError):
        return set()
    return {key for key in keys_of(table.drop_duplicates(), task) if key is not None}


def shared_groups(groups: Iterable[str], split: str, root: str | Path, other_split: str) -> list[str]:
    """Those of a split's groups that the other has questions about as well; logs a warning where there are any."""
    others, task = groups_of(root, other_split), description.of_folder(root)
    shared = sorted({group for group in groups if group_key(group) in others})
    if shared:
        names = ", ".join(repr(group) for group in shared[:MAX_GROUPS_NAMED])
        more = f" and {len(shared) - MAX_GROUPS_NAMED} more" if len(shared) > MAX_GROUPS_NAMED else ""
        told = f"{task.groups.capitalize()} in {split} and {other_split} questions alike"
        logger.warning("%s: %d (%s%s).", told, len(shared), names, more)
    return shared


def split_groups(
    clips: Sequence[Clip], fraction: float, seed: int, word: str = "group"
) -> tuple[list[Clip], list[Clip]]:
    """Training and validation clips; every group is wholly on one side, at least one on each. `word`: for a group."""
    groups = list(spellings(clip.group for clip in clips).values())
    if len(groups) < 2:
        raise InputError(
            f"the training questions come from {len(groups)} {word}: at least 2 are needed to validate on one."
        )
    count = min(len(groups) - 1, max(1, round(len(groups) * fraction)))
    held_out = {group_key(group) for group in np.random.default_rng(seed).permutation(groups)[:count]}
    sides: tuple[list[Clip], list[Clip]] = [], []
    for clip in clips:
        sides[group_key(clip.group) in held_out].append(clip)
    return sides
