"""How large a model is: weights by kind, and what a layer keeps for the backward pass."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass

import torch
from transformers import VideoLlavaConfig, VideoLlavaForConditionalGeneration

from cinetune.model.base import LORA_TARGETS


@dataclass(frozen=True)
class Size:
    """Weights by kind: those of the language model's layers can be quantised; `trained`: LoRA."""

    layers: int
    hidden: int
    intermediate: int
    quantisable: int
    other: int
    trained: int


def size_of(config: VideoLlavaConfig, lora_rank: int) -> Size:
    """Counted on a model without weights."""
    with torch.device("meta"):
        model = VideoLlavaForConditionalGeneration(copy.deepcopy(config))
    quantisable = trained = 0
    for name, module in model.named_modules():
        if re.fullmatch(LORA_TARGETS, name):
            quantisable += module.weight.numel()
            trained += lora_rank * sum(module.weight.shape)
    every = sum(weight.numel() for weight in model.parameters())
    text = config.text_config
    shape = text.num_hidden_layers, text.hidden_size, text.intermediate_size
    return Size(*shape, quantisable, every - quantisable, trained)


def kept_bytes(tokens: int, hidden: int, intermediate: int, width: int) -> int:
    """What one layer keeps of a pack for the backward pass: about six vectors of the hidden size and four of the other.

    As measured with the 7B's shape (docs/performance.md); width: bytes of a number.
    """
    return width * tokens * (6 * hidden + 4 * intermediate)
