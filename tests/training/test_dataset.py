"""Every question is in one pack."""

from __future__ import annotations

from typing import Any

import pytest

from builders.trainings import clips, frames_of
from cinetune.model import planning
from cinetune.model.encoder import Encoder
from cinetune.runtime import distributed
from cinetune.training.dataset import Packs

pytestmark = pytest.mark.training


def test_every_question_of_every_clip_is_in_exactly_one_pack(encoder: Encoder) -> None:
    given = clips(5, 1, 7, 3)
    packs = Packs(given, encoder, frames_of, 3)
    found = [question.question_id for _, questions in packs.items for question in questions]
    assert sorted(found) == sorted(question.question_id for item in given for question in item.questions)
    assert [packs[index].num_questions for index in range(len(packs))] == [len(asked) for _, asked in packs.items]
    assert max(len(asked) for _, asked in packs.items) == 3


def texts(packs: Packs) -> list[list[int]]:
    return [packs[index].input_ids.tolist() for index in range(len(packs))]


def test_options_are_shuffled_anew_in_each_epoch_and_the_same_way_each_time(encoder: Encoder) -> None:
    given = clips(4, 4)
    plain, packs = Packs(given, encoder, frames_of, 3), Packs(given, encoder, frames_of, 3, shuffle_seed=7)
    first = texts(packs)
    packs.begin_epoch(1)
    second = texts(packs)
    assert texts(plain) != first != second != texts(plain)
    packs.begin_epoch(0)
    assert texts(packs) == first
    assert texts(Packs(given, encoder, frames_of, 3, shuffle_seed=8)) != first


def test_the_right_option_keeps_being_right() -> None:
    question = clips(1)[0].questions[0]
    moved = question.reordered([3, 0, 4, 1, 2])
    assert moved.choices == tuple(question.choices[i] for i in (3, 0, 4, 1, 2))
    assert moved.choices[moved.answer] == question.choices[question.answer]


def test_each_process_counts_the_tokens_of_its_part_and_all_plan_the_same(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = clips(5, 1, 7, 3, 2)
    alone = Packs(given, encoder, frames_of, 3, in_words=1, tokens_per_pack=400).plan
    parts = [planning.measure(given[rank::2], encoder, True) for rank in range(2)]
    asked = []

    def gather(own: list[Any]) -> list[Any]:
        asked.extend(own)
        return parts

    monkeypatch.setattr(distributed, "count", lambda: 2)
    monkeypatch.setattr(distributed, "gather", gather)
    for rank in range(2):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        assert Packs(given, encoder, frames_of, 3, in_words=1, tokens_per_pack=400).plan == alone
    assert asked == parts
