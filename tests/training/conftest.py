"""A random base that nothing has been attached to."""

from __future__ import annotations

from typing import Any

import pytest

from builders.tokenizers import tokenizer_of
from builders.trainings import NUM_FRAMES, fresh_base
from cinetune.model.encoder import Encoder, encoder_for


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tokenizer_of()


@pytest.fixture
def base(tokenizer: Any) -> Any:
    return fresh_base(tokenizer)


@pytest.fixture
def encoder(base: Any, tokenizer: Any) -> Encoder:
    return encoder_for(base.config, tokenizer, NUM_FRAMES, 512)
