"""Attach, save or load a LoRA adapter on the language model, and check what was loaded."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open
from transformers import (
    VideoLlavaForConditionalGeneration,
)

from cinetune.errors import InputError, reason_of
from cinetune.params import TrainParams

if TYPE_CHECKING:
    # Importing PEFT takes four seconds, which those who need only the base should not wait for.
    from peft import PeftModel
from cinetune.model.base import LORA_TARGETS

# Where older transformers had what now stands elsewhere in a Video-LLaVA; the last only where towers have no such part.
OLDER_NAMES = (
    (r"^base_model\.model\.language_model\.model\.", "base_model.model.model.language_model."),
    (r"^base_model\.model\.(video_tower|image_tower|multi_modal_projector)\.", r"base_model.model.model.\1."),
)
OLDER_TOWERS = (r"\b(video_tower|image_tower)\.vision_model\.", r"\1.")


def attach_lora(model: VideoLlavaForConditionalGeneration, params: TrainParams) -> PeftModel:
    """A trainable LoRA on the language model alone; it starts as the identity. Seed torch before the call."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=params.lora_rank,
        lora_alpha=params.lora_alpha,
        lora_dropout=params.lora_dropout,
        target_modules=LORA_TARGETS,
        task_type="CAUSAL_LM",
    )
    adapted = get_peft_model(model, config)
    strays = [name for name, weight in adapted.named_parameters() if weight.requires_grad and not _is_lora(name)]
    if strays or not any(weight.requires_grad for weight in adapted.parameters()):
        raise AssertionError(f"LoRA must be on the language model alone, found trainable {strays[:3]}")
    return adapted


def load_adapter(model: VideoLlavaForConditionalGeneration, folder: str | Path) -> PeftModel:
    """The base with a saved adapter, in evaluation mode; one made with older transformers has other names.

    PEFT only warns about keys that do not fit, so the file's keys are compared with the model's: InputError when
    one is missing, left over or of another shape.
    """
    from peft import PeftModel

    folder = Path(folder)
    weights = folder / "adapter_model.safetensors"
    if not (folder / "adapter_config.json").is_file() or not weights.is_file():
        raise InputError(f"{str(folder)!r} is not an adapter folder: it needs adapter_config.json and {weights.name}.")
    try:
        kind = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8")).get("peft_type")
    except (ValueError, AttributeError):
        kind = None
    if kind != "LORA":
        raise InputError(f"adapter {str(folder)!r} is of type {kind!r}: a LoRA adapter is needed.")
    try:
        with safe_open(weights, "pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        present = {name: _present_name(model, name) for name in shapes}
        saved = {present[name]: shape for name, shape in shapes.items()}
        # PEFT looks for patterns in names without their first two parts.
        renamed = {f"^{re.escape(_bare(old))}$": _bare(new) for old, new in present.items()}
        # In the base's type, as training computes with it.
        adapted = PeftModel.from_pretrained(model, str(folder), autocast_adapter_dtype=False, key_mapping=renamed)
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise InputError(f"adapter {str(folder)!r} does not fit the base model: {reason_of(error)}.") from None
    wanted = {
        name.replace(".default.", "."): tuple(weight.shape)
        for name, weight in adapted.named_parameters()
        if ".lora_" in name
    }
    if saved != wanted:
        wrong = sorted(name for name in saved.keys() | wanted.keys() if saved.get(name) != wanted.get(name))
        raise InputError(
            f"adapter {str(folder)!r} does not fit the base model: {len(wrong)} tensors differ, first {wrong[0]!r}."
        )
    return adapted.eval()


def _present_name(model: VideoLlavaForConditionalGeneration, name: str) -> str:
    has_inner_part = any(".vision_model." in part for part, _ in model.named_parameters())
    for pattern, replacement in OLDER_NAMES if has_inner_part else (*OLDER_NAMES, OLDER_TOWERS):
        name = re.sub(pattern, replacement, name)
    return name


def _bare(name: str) -> str:
    return name.removeprefix("base_model.model.")


def save_adapter(adapted: PeftModel, folder: str | Path) -> None:
    """Adapter and its configuration in PEFT's layout; nothing that differs from run to run."""
    folder = Path(folder)
    adapted.save_pretrained(folder)
    # PEFT adds a model card to be filled in by hand; the project writes one of its own at registration.
    (folder / "README.md").unlink(missing_ok=True)


def _is_lora(name: str) -> bool:
    return re.search(LORA_TARGETS + r"\.lora_", name) is not None
