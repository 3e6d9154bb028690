"""Memory that runs out is one sentence."""

from __future__ import annotations

import pytest
import torch

from builders.refusals import sentence
from cinetune.runtime import memory

pytestmark = pytest.mark.training


def test_memory_that_runs_out_is_one_sentence_with_the_knobs() -> None:
    def run_out(error: BaseException) -> None:
        with memory.explained("training"):
            raise error

    for error, place in (
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "GPU"),
        (MemoryError(), "machine"),
    ):
        said = sentence(lambda error=error: run_out(error))
        assert place in said and "train.tokens_per_pack" in said and "model.quantization" in said
    said = sentence(lambda: _allocate_too_much())
    assert "machine" in said
    with pytest.raises(RuntimeError, match="something else"):
        run_out(RuntimeError("something else"))


def _allocate_too_much() -> None:
    with memory.explained("training"):
        torch.empty(2**55, dtype=torch.uint8)
