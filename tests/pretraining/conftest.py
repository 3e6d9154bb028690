"""The tiny base's reader."""

from __future__ import annotations

import pytest

from builders.pretraining import PARAMS
from builders.tokenizers import tokenizer_of
from cinetune.model.encoder import Encoder


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    tokenizer = tokenizer_of(PARAMS.pretrain.vocab_size, PARAMS.pretrain.seed)
    return Encoder(tokenizer, tokenizer.convert_tokens_to_ids("<video>"), 10, 512)
