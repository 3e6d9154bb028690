"""What is exported: a tiny base with an adapter that changes it, and clips with questions and frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import VideoLlavaConfig, VideoLlavaForConditionalGeneration

from builders import bases, trainings
from builders.tokenizers import tokenizer_of
from cinetune.export.source import Source
from cinetune.model.base import load_base
from cinetune.model.lora import attach_lora, save_adapter
from cinetune.params import Params
from cinetune.pretraining import architecture
from cinetune.task.questions import ClipQuestions

CLIPS: Sequence[ClipQuestions] = trainings.clips(3, 2, of="test")


def params_of(root: Path, **model: Any) -> Params:
    """Of a project whose frames are those of `trainings.frames_of`."""
    frames = {"size": trainings.SIZE, "num_frames": trainings.NUM_FRAMES}
    params = trainings.PARAMS.override("frames", frames).override("evaluate", {"max_new_tokens": 3})
    return params.override("model", {"base": str(root / "base-model")} | model)


def write_tiny_base(root: Path) -> None:
    """With the width of heads that 4-bit weights need."""
    architecture.save(trainings.fresh_base(tokenizer_of()), tokenizer_of(), str(root / "base-model"))


def write_shaped_base(folder: Path, width: int, heads: int, layers: int, vision_width: int) -> None:
    """A base in bfloat16 with random weights, in the real one's proportions and with its kind of tokenizer."""
    content = bases.real_config()
    content["text_config"] |= {
        "hidden_size": width,
        "intermediate_size": width * 43 // 16,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "num_hidden_layers": layers,
    }
    vision = {"hidden_size": vision_width, "intermediate_size": 4 * vision_width, "num_hidden_layers": layers + 1}
    content["vision_config"] |= vision | {"num_attention_heads": max(1, vision_width // 64)}
    given = {key: value for key, value in content.items() if key not in bases.NOT_GIVEN}
    torch.manual_seed(0)
    VideoLlavaForConditionalGeneration(VideoLlavaConfig(**given)).to(torch.bfloat16).save_pretrained(folder)
    bases.sentencepiece_tokenizer().save_pretrained(folder)


def shaped_source(root: Path, **shape: int) -> Source:
    """An adapter on such a base, shown as many frames as the real one."""
    write_shaped_base(root / "base-model", **shape)
    params = params_of(root, dtype="bfloat16").override("frames", {"size": 224, "num_frames": 8})
    write_adapter(params, root / "adapter")
    return Source.open(root / "adapter", "adapter", params)


def large_frames_of(clip_id: str) -> np.ndarray:
    """uint8 [8, 224, 224, 3]."""
    return np.random.default_rng(list(clip_id.encode())).integers(0, 256, (8, 224, 224, 3), dtype=np.uint8)


def write_adapter(params: Params, folder: Path) -> None:
    """As large as one that was trained: it changes what is answered."""
    torch.manual_seed(2)
    base, _ = load_base(params.model, "cpu")
    adapted = attach_lora(base, params.train)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    save_adapter(adapted, folder)


def make_source(root: Path, **model: Any) -> Source:
    """The source of an adapter on the base that is in `root` already."""
    params = params_of(root, **model)
    write_adapter(params, root / "adapter")
    return Source.open(root / "adapter", "adapter", params)
