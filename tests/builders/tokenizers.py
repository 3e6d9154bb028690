"""The tiny base's tokenizer, which takes two seconds to learn."""

from __future__ import annotations

import functools

from transformers import PreTrainedTokenizerFast

from cinetune.pretraining import architecture


@functools.cache
def tokenizer_of(vocab_size: int = 1024, seed: int = 3) -> PreTrainedTokenizerFast:
    """One for all tests: none of them changes it."""
    return architecture.make_tokenizer(vocab_size, seed)
