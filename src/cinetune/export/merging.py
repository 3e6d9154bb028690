"""A LoRA adapter merged into the weights that it was trained beside."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from transformers import VideoLlavaForConditionalGeneration

from cinetune.errors import InputError

if TYPE_CHECKING:
    from peft import PeftModel


@torch.no_grad()
def merge(adapted: PeftModel) -> VideoLlavaForConditionalGeneration:
    """The base with the adapter added to its weights, each sum taken in float32 and rounded once to their type.

    The model is changed in place, a layer at a time. Raises InputError where a sum is beyond the type's range.
    """
    from peft.tuners.lora import LoraLayer

    for name, layer in adapted.named_modules():
        if not isinstance(layer, LoraLayer):
            continue
        weight = layer.get_base_layer().weight
        if not weight.is_floating_point() or weight.ndim != 2:
            raise AssertionError(f"{name} is quantised: an adapter is merged into weights as they were before that")
        total = weight.float()
        for adapter in layer.active_adapters:
            down, up = layer.lora_A[adapter].weight.float(), layer.lora_B[adapter].weight.float()
            total = total + layer.scaling[adapter] * (up @ down)
        merged = total.to(weight.dtype)
        if not merged.isfinite().all():
            raise InputError(
                f"the adapter merged into {name!r} is beyond the range of {str(weight.dtype).removeprefix('torch.')}: "
                "set model.dtype to float32 or bfloat16."
            )
        weight.copy_(merged)
    merged_model: VideoLlavaForConditionalGeneration = adapted.unload()
    return merged_model.eval()
