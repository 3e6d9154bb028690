"""What is exported: a tiny base with an adapter that changes it, and clips with questions and frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from builders import trainings
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


def write_adapter(params: Params, folder: Path) -> None:
    """As large as one that was trained: it changes what is answered."""
    torch.manual_seed(1)
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
