"""Which split a row comes to: that which it is given for, else by its group, so that none is on both sides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from cinetune.data.importing.sources import SPLITS
from cinetune.task.groups import group_key


def groups_of_videos(named: Iterable[tuple[str, str]]) -> dict[str, str]:
    """By video the group that most of its rows name, the first of equals; itself where they name none.

    Parts of one video may overlap, so that it is never in two groups.
    """
    votes: dict[str, Counter[str]] = {}
    spelled: dict[str, str] = {}
    for video, group in named:
        votes.setdefault(video, Counter())[spelled.setdefault(group_key(group), group)] += 1
    return {video: max(groups, key=lambda name: (name != "", groups[name])) or video for video, groups in votes.items()}


def given(rows: Iterable[tuple[str, str]]) -> dict[str, str]:
    """By key of a group, the split that it is given for; the one that is held out most, where it is in several."""
    found: dict[str, str] = {}
    for group, split in rows:
        key = group_key(group)
        if split and SPLITS.index(split) >= SPLITS.index(found.get(key, SPLITS[0])):
            found[key] = split
    return found


def draw(sizes: Mapping[str, int], fraction: float, seed: int, has_validation: bool) -> set[str]:
    """Keys of the groups for the test, about `fraction` of the questions.

    One group at least is left to train on, and one to validate on where no others are given for that. sizes: number of
    questions by key of the group.
    """
    names: Sequence[str] = sorted(sizes)
    room, wanted = len(names) - (1 if has_validation else 2), fraction * sum(sizes.values())
    drawn: set[str] = set()
    taken = 0
    for place in np.random.default_rng(seed).permutation(len(names)):
        name = names[place]
        # The first group is taken whatever its size.
        if wanted and len(drawn) < room and (not drawn or taken + sizes[name] / 2 <= wanted):
            drawn.add(name)
            taken += sizes[name]
    return drawn
