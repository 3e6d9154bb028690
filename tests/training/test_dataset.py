"""Every question is in one pack."""

from __future__ import annotations

import pytest

from builders.trainings import clips, frames_of
from cinetune.model.encoder import Encoder
from cinetune.training.dataset import Packs

pytestmark = pytest.mark.training


def test_every_question_of_every_clip_is_in_exactly_one_pack(encoder: Encoder) -> None:
    given = clips(5, 1, 7, 3)
    packs = Packs(given, encoder, frames_of, 3)
    found = [question.question_id for _, questions in packs.items for question in questions]
    assert sorted(found) == sorted(question.question_id for item in given for question in item.questions)
    assert [packs[index].num_questions for index in range(len(packs))] == [len(asked) for _, asked in packs.items]
    assert max(len(asked) for _, asked in packs.items) == 3
