"""A tokenizer that can read anything and a model made for it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from builders.pretraining import PARAMS, SETTINGS, SMALL
from builders.tokenizers import tokenizer_of
from cinetune.model.encoder import Encoder
from cinetune.pretraining import architecture, lessons

pytestmark = pytest.mark.training


@pytest.mark.parametrize(
    "text",
    [
        "Plain words.",
        "",
        " two  spaces ",
        "tabs\tand\nlines\r\n",
        "é 漢字 😀",
        "مرحبا \u202e",
        "\x00\x07",
        "Ａ）",
        "\U0010ffff",
    ],
    ids=ascii,
)
def test_no_text_is_unknown_to_the_tokenizer(encoder: Encoder, text: str) -> None:
    ids = encoder.tokenizer(text, add_special_tokens=False).input_ids
    assert encoder.tokenizer.decode(ids) == text


def test_any_text_survives_the_tokenizer(encoder: Encoder) -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        points = rng.integers(0, 0x3000 if rng.random() < 0.5 else 0x110000, 30)
        text = "".join(chr(point) for point in points if not 0xD800 <= point < 0xE000)
        assert encoder.tokenizer.decode(encoder.tokenizer(text, add_special_tokens=False).input_ids) == text


def test_every_label_is_one_token_of_its_own(encoder: Encoder) -> None:
    assert len(set(encoder.letters())) == 5
    labels = (*lessons.NUMBERS, *lessons.LATER_LETTERS, *lessons.LETTERS)
    answers = [encoder.answer(label) for label in labels]
    assert {len(answer) for answer in answers} == {2}
    assert len({answer[0] for answer in answers}) == len(labels)


def test_text_begins_with_the_start_token_and_only_text_at_a_start_does(encoder: Encoder) -> None:
    tokenizer = encoder.tokenizer
    assert tokenizer("USER: a").input_ids[0] == tokenizer.bos_token_id
    assert tokenizer.bos_token_id not in encoder.suffix("What?", None)


def test_a_seed_gives_the_same_tokenizer_and_another_seed_another() -> None:
    one, again, other = tokenizer_of(), architecture.make_tokenizer(1024, 3), architecture.make_tokenizer(1024, 4)
    assert one.backend_tokenizer.to_str() == again.backend_tokenizer.to_str() != other.backend_tokenizer.to_str()


def test_the_base_has_one_to_three_million_parameters_in_shapes_that_nf4_takes(encoder: Encoder) -> None:
    model = architecture.make_model(PARAMS.pretrain, PARAMS.frames.size, encoder.tokenizer)
    assert 1e6 < sum(weight.numel() for weight in model.parameters()) < 3e6
    linear = {
        name: module.weight.shape
        for name, module in model.model.language_model.named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    assert len(linear) == 7 * PARAMS.pretrain.layers
    for name, shape in linear.items():
        assert all(size % 64 == 0 for size in shape), name


def test_one_torch_seed_gives_one_model(encoder: Encoder) -> None:
    def first_weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        model = architecture.make_model(SMALL, SETTINGS.size, encoder.tokenizer)
        return torch.cat([weight.detach().flatten() for weight in model.parameters()])

    assert torch.equal(first_weights(1), first_weights(1))
    assert not torch.equal(first_weights(1), first_weights(2))
