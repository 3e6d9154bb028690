"""A pack that is not its questions passed one by one is refused before anything is learned from it."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from builders.packs import make_clips, make_tiny
from builders.refusals import sentence
from cinetune.model import float8, packing
from cinetune.model.attention import Layout, question_layout
from cinetune.model.base import replace_projections
from cinetune.model.encoder import Encoder
from cinetune.model.float8 import Float8Linear
from cinetune.model.packing import Pack, training_pack
from cinetune.model.proof import LIMITS, check_pack, pack_difference

pytestmark = pytest.mark.training

Tiny = tuple[Any, Encoder]


@pytest.fixture(scope="module", params=LIMITS, ids=str)
def tiny(request: pytest.FixtureRequest) -> Tiny:
    """In each type that a base may compute in."""
    return make_tiny(0, request.param)


@pytest.fixture(scope="module")
def item(tiny: Tiny) -> Pack:
    return pack_of(tiny[1])


def pack_of(encoder: Encoder) -> Pack:
    [clip] = make_clips(1)
    frames = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)
    return training_pack(encoder, clip, clip.questions, frames, in_words=clip.questions[:1])


def limit_of(model: Any) -> float:
    return LIMITS[model.get_input_embeddings().weight.dtype]


def difference(tiny: Tiny, item: Pack) -> float:
    model, encoder = tiny
    prefix = len(encoder.prefix(make_clips(1)[0].subtitles)[0])
    return pack_difference(model, item, prefix, encoder.tokenizer.pad_token_id)


def test_a_right_pack_differs_by_rounding_alone_and_leaves_the_model_as_it_was(tiny: Tiny, item: Pack) -> None:
    model, _ = tiny
    model.train()
    state = torch.get_rng_state()
    found = difference(tiny, item)
    assert 0 <= found < limit_of(model) / 5 and model.training and torch.equal(torch.get_rng_state(), state)
    check_pack(found, model)
    model.eval()


def test_one_wrong_position_is_refused(tiny: Tiny, item: Pack) -> None:
    positions = item.position_ids.copy()
    positions[item.slots[1]] += 1
    check_refused(tiny, dataclasses.replace(item, position_ids=positions))


def test_one_wrong_segment_is_refused(tiny: Tiny, item: Pack) -> None:
    """In float32 a single token of it is; in the others, whose rounding hides one, a few are."""
    segments = item.segments.copy()
    is_exact = tiny[0].get_input_embeddings().weight.dtype == torch.float32
    segments[np.flatnonzero(segments == 2)[: 1 if is_exact else 4]] = 1
    check_refused(tiny, dataclasses.replace(item, segments=segments))


def test_one_wrong_border_of_the_mask_is_refused(tiny: Tiny, item: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    def shifted(lengths: list[int], start: int) -> Layout:
        return question_layout([lengths[0] - 1, lengths[1] + 1, *lengths[2:]], start)

    monkeypatch.setattr(packing, "question_layout", shifted)
    check_refused(tiny, item)


def check_refused(tiny: Tiny, item: Pack) -> None:
    found = difference(tiny, item)
    said = sentence(lambda: check_pack(found, tiny[0]))
    assert f"differ by {found:.2g}" in said and f"rounding explains {limit_of(tiny[0]):g}" in said


def test_what_is_no_number_is_refused(tiny: Tiny) -> None:
    for none in (float("nan"), float("inf")):
        assert "rounding explains" in sentence(lambda none=none: check_pack(none, tiny[0]))


def test_float8_hides_no_wrong_position_behind_its_rounding() -> None:
    """A right pack of rounded weights is as near as one of plain weights, and the products are float8's again."""
    tiny = make_tiny(0)
    model, item = tiny[0], pack_of(tiny[1])
    replace_projections(model, Float8Linear)
    layers = [layer for layer in model.modules() if isinstance(layer, Float8Linear)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(float8, "rounded", lambda values: pytest.fail("an input was rounded"))
        assert difference(tiny, item) < limit_of(model) / 5
    assert layers and all(layer.rounds_inputs for layer in layers)
    positions = item.position_ids.copy()
    positions[item.slots[1]] += 1
    check_refused(tiny, dataclasses.replace(item, position_ids=positions))
