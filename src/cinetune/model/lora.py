"""Attach, save or load a LoRA adapter on the language model, and check what was loaded."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from transformers import (
    VideoLlavaForConditionalGeneration,
)

from cinetune.errors import InputError, reason_of
from cinetune.model.base import LORA_TARGETS
from cinetune.model.lookup import is_hub_id
from cinetune.params import TrainParams

if TYPE_CHECKING:
    # Importing PEFT takes four seconds, which those who need only the base should not wait for.
    from peft import PeftModel

logger = logging.getLogger(__name__)
PEFT_PREFIX = "base_model.model."
# What a LoRA configuration may ask for beyond plain LoRA on linear layers, and its value when it does not.
BEYOND_PLAIN = {
    "use_dora": (False, "DoRA"),
    "modules_to_save": ([], "a LoRA with whole modules beside it (modules_to_save)"),
    "bias": ("none", "a LoRA with trained biases"),
    "lora_bias": (False, "a LoRA with biases of its own (lora_bias)"),
    "trainable_token_indices": ([], "a LoRA with trained tokens"),
    "target_parameters": ([], "a LoRA on single parameters"),
    "layer_replication": ([], "a LoRA on repeated layers"),
}
# The same, seen in the names of tensors.
BEYOND_PLAIN_NAMES = {
    ".lora_magnitude_vector": "DoRA",
    ".lora_embedding_": "a LoRA on the embeddings",
    "lm_head.": "a LoRA on lm_head",
    "modules_to_save": "a LoRA with whole modules beside it (modules_to_save)",
}


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
    one is missing, left over or of another shape, and for what is more than plain LoRA or of another base.
    """
    from peft import PeftModel

    folder = Path(folder)
    weights = folder / "adapter_model.safetensors"
    if not (folder / "adapter_config.json").is_file() or not weights.is_file():
        raise InputError(f"{str(folder)!r} is not an adapter folder: it needs adapter_config.json and {weights.name}.")
    config = _read_config(folder)
    _check_base_of(config, str(model.config.name_or_path), folder)
    patterns = _present_names(model)
    try:
        with safe_open(weights, "pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        _check_plain(config, shapes, folder)
        saved = {_renamed(name, patterns): shape for name, shape in shapes.items()}
        # In the base's type, as training computes with it.
        adapted = PeftModel.from_pretrained(model, str(folder), autocast_adapter_dtype=False, key_mapping=patterns)
    except InputError:
        raise
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


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        kind = config.get("peft_type")
    except (ValueError, AttributeError):
        config, kind = {}, None
    if kind != "LORA":
        raise InputError(f"adapter {str(folder)!r} is of type {kind!r}: a LoRA adapter is needed.")
    return dict(config)


def _check_plain(config: Mapping[str, Any], names: Iterable[str], folder: Path) -> None:
    """Raises InputError for an adapter that is more than LoRA on linear layers, which would be used in part at most."""
    found = [what for key, (plain, what) in BEYOND_PLAIN.items() if (config.get(key) or plain) != plain]
    found += [what for part, what in BEYOND_PLAIN_NAMES.items() if any(part in name for name in names)]
    if found:
        raise InputError(
            f"adapter {str(folder)!r} is {found[0]}: only plain LoRA on the linear layers of the language model and "
            "the vision towers can be used, so train it as that."
        )


def _check_base_of(config: Mapping[str, Any], base: str, folder: Path) -> None:
    """Raises InputError where adapter and base are known by two names of the hub; a folder may hold any base."""
    own = str(config.get("base_model_name_or_path") or "")
    if own == base or not is_hub_id(own):
        return
    if is_hub_id(base):
        raise InputError(
            f"adapter {str(folder)!r} was made on base model {own!r}, not on {base!r}: set model.base to {own}."
        )
    logger.warning("adapter %s was made on %s: %s is taken to be that base.", folder, own, base)


def _present_names(model: VideoLlavaForConditionalGeneration) -> dict[str, str]:
    """Patterns of names in adapters, without PEFT's first two parts, and what they are called in this model.

    Older transformers had the language model, the towers and the projector elsewhere; towers had an inner part.
    """
    has_inner_part = any(".vision_model." in name for name, _ in model.named_parameters())
    return {
        r"^language_model\.model\.": "model.language_model.",
        r"^(?:model\.)?(video_tower|image_tower)\.(?:vision_model\.)?": r"model.\1."
        + ("vision_model." if has_inner_part else ""),
        r"^(?:model\.)?multi_modal_projector\.": "model.multi_modal_projector.",
    }


def _renamed(name: str, patterns: Mapping[str, str]) -> str:
    """As PEFT renames it."""
    bare = name.removeprefix(PEFT_PREFIX)
    for pattern, replacement in patterns.items():
        renamed, count = re.subn(pattern, replacement, bare)
        if count:
            return name.removesuffix(bare) + renamed
    return name


def is_identity(adapted: PeftModel) -> bool:
    """Whether a LoRA changes nothing, as one that was not trained yet."""
    return not any(weight.any() for name, weight in adapted.named_parameters() if ".lora_B." in name)


def save_adapter(adapted: PeftModel, folder: str | Path) -> None:
    """Adapter and its configuration in PEFT's layout; nothing that differs from run to run."""
    folder = Path(folder)
    adapted.save_pretrained(folder)
    # PEFT adds a model card to be filled in by hand; the project writes one of its own at registration.
    (folder / "README.md").unlink(missing_ok=True)


def _is_lora(name: str) -> bool:
    return re.search(LORA_TARGETS + r"\.lora_", name) is not None
