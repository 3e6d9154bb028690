"""A pack that is not its questions passed one by one is refused before anything is learned from it."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from builders.packs import make_clips, make_tiny
from builders.refusals import sentence
from cinetune.model import packing
from cinetune.model.attention import Layout, question_layout
from cinetune.model.encoder import Encoder
from cinetune.model.packing import Pack, training_pack
from cinetune.model.proof import check_pack, pack_difference

pytestmark = pytest.mark.training

Tiny = tuple[Any, Encoder]


@pytest.fixture(scope="module")
def tiny() -> Tiny:
    return make_tiny(0)


@pytest.fixture(scope="module")
def item(tiny: Tiny) -> Pack:
    [clip] = make_clips(1)
    frames = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)
    return training_pack(tiny[1], clip, clip.questions, frames, in_words=clip.questions[:1])


def difference(tiny: Tiny, item: Pack) -> float:
    model, encoder = tiny
    prefix = len(encoder.prefix(make_clips(1)[0].subtitles)[0])
    return pack_difference(model, item, prefix, encoder.tokenizer.pad_token_id)


def test_a_right_pack_differs_by_rounding_alone_and_leaves_the_model_as_it_was(tiny: Tiny, item: Pack) -> None:
    model, _ = tiny
    model.train()
    state = torch.get_rng_state()
    found = difference(tiny, item)
    assert 0 <= found < 1e-5 and model.training and torch.equal(torch.get_rng_state(), state)
    check_pack(found, model)
    model.eval()


def test_one_wrong_position_is_refused(tiny: Tiny, item: Pack) -> None:
    positions = item.position_ids.copy()
    positions[item.slots[1]] += 1
    check_refused(tiny, dataclasses.replace(item, position_ids=positions))


def test_one_wrong_segment_is_refused(tiny: Tiny, item: Pack) -> None:
    segments = item.segments.copy()
    segments[np.flatnonzero(segments == 2)[0]] = 1
    check_refused(tiny, dataclasses.replace(item, segments=segments))


def test_one_wrong_border_of_the_mask_is_refused(tiny: Tiny, item: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    def shifted(lengths: list[int], start: int) -> Layout:
        return question_layout([lengths[0] - 1, lengths[1] + 1, *lengths[2:]], start)

    monkeypatch.setattr(packing, "question_layout", shifted)
    check_refused(tiny, item)


def check_refused(tiny: Tiny, item: Pack) -> None:
    found = difference(tiny, item)
    said = sentence(lambda: check_pack(found, tiny[0]))
    assert f"differ by {found:.2g}" in said and "rounding explains 0.0001" in said


def test_what_is_no_number_is_refused(tiny: Tiny) -> None:
    for none in (float("nan"), float("inf")):
        assert "rounding explains" in sentence(lambda none=none: check_pack(none, tiny[0]))
