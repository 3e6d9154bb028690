"""Attach, save or load a LoRA adapter on the language model, and check what was loaded."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from transformers import (
    VideoLlavaForConditionalGeneration,
)

from cinetune.errors import InputError, reason_of
from cinetune.model.base import LORA_TARGETS
from cinetune.model.lookup import is_hub_id
from cinetune.model.shape import UNUSABLE
from cinetune.params import TrainParams

if TYPE_CHECKING:
    # Importing PEFT takes four seconds, which those who need only the base should not wait for.
    from peft import LoraConfig, PeftModel

logger = logging.getLogger(__name__)
PEFT_PREFIX = "base_model.model."
# What a LoRA configuration tells of plain LoRA on linear layers. Whatever else is set asks for more, as will be what
# later versions of PEFT add.
PLAIN = frozenset(
    ("peft_type", "task_type", "peft_version", "base_model_name_or_path", "revision", "inference_mode", "auto_mapping",
     "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "lora_dropout", "fan_in_fan_out",
     "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "init_lora_weights",
     # Read with what is refused alone, or for the weights that a training begins with.
     "loftq_config", "eva_config", "corda_config", "lora_ga_config", "qalora_group_size", "megatron_core")
)  # fmt: skip
BEYOND_PLAIN = {
    "use_dora": "DoRA",
    "modules_to_save": "a LoRA with whole modules beside it (modules_to_save)",
    "bias": "a LoRA with trained biases",
    "lora_bias": "a LoRA with biases of its own (lora_bias)",
    "trainable_token_indices": "a LoRA with trained tokens",
    "target_parameters": "a LoRA on single parameters",
    "layer_replication": "a LoRA on repeated layers",
}
# Trainings that begin so take a part of the base's weights away, which a base that is read anew still has.
CHANGING_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
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
        adapted = PeftModel.from_pretrained(
            model, str(folder), config=_lora_config(folder, patterns), autocast_adapter_dtype=False,
            key_mapping=patterns,
        )  # fmt: skip
    except InputError:
        raise
    except (*UNUSABLE, re.error) as error:
        reason = reason_of(error) or type(error).__name__
        raise InputError(f"adapter {str(folder)!r} does not fit the base model: {reason}.") from None
    held = {name.replace(".default.", "."): weight for name, weight in adapted.named_parameters() if ".lora_" in name}
    wanted = {name: tuple(weight.shape) for name, weight in held.items()}
    if saved != wanted:
        wrong = sorted(name for name in saved.keys() | wanted.keys() if saved.get(name) != wanted.get(name))
        raise InputError(
            f"adapter {str(folder)!r} does not fit the base model: {len(wrong)} tensors differ, first {wrong[0]!r}."
        )
    _check_numbers(adapted, held, folder)
    return adapted.eval()


def _lora_config(folder: Path, patterns: Mapping[str, str]) -> LoraConfig:
    """An adapter's own, with layers under their present names.

    How its training began and which kind of PEFT's models it was decide nothing here.
    """
    from peft import LoraConfig

    config: LoraConfig = LoraConfig.from_pretrained(str(folder))
    config.task_type, config.init_lora_weights = "CAUSAL_LM", True
    for name in ("rank_pattern", "alpha_pattern"):
        setattr(config, name, {_renamed(key, patterns): value for key, value in getattr(config, name).items()})
    for name in ("target_modules", "exclude_modules"):
        if isinstance(getattr(config, name), list | set):
            setattr(config, name, {_renamed(layer, patterns) for layer in getattr(config, name)})
    return config


def _check_numbers(adapted: PeftModel, held: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Raises InputError for NaN or inf in an adapter, and for a rank or an alpha of layers that it does not have."""
    from peft.tuners.lora import LoraLayer

    layers = {name: layer for name, layer in adapted.named_modules() if isinstance(layer, LoraLayer)}
    scales = {name: torch.tensor(layer.scaling["default"]) for name, layer in layers.items()}
    wrong = [name for name, weight in {**held, **scales}.items() if not weight.isfinite().all()]
    if wrong:
        raise InputError(f"adapter {str(folder)!r} holds NaN or inf, first in {wrong[0]!r}: train it again.")
    config = adapted.peft_config["default"]
    for setting in ("rank_pattern", "alpha_pattern"):
        for key in getattr(config, setting):
            # As PEFT looks for it; of one that it finds nowhere it says nothing.
            if not any(re.match(rf"(.*\.)?({key})$", name) for name in layers):
                raise InputError(
                    f"adapter {str(folder)!r} has {key!r} in its {setting}, and no layer of that name: name it as "
                    "its tensors are named."
                )


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
    from peft import LoraConfig

    usual, start = LoraConfig().to_dict(), str(config.get("init_lora_weights")).lower()
    beyond = [key for key, value in config.items() if key not in PLAIN and value and value != usual.get(key)]
    found = [BEYOND_PLAIN.get(key, f"a LoRA with {key}") for key in beyond]
    found += [what for part, what in BEYOND_PLAIN_NAMES.items() if any(part in name for name in names)]
    if start.startswith(CHANGING_BASE):
        found.append(f"a LoRA beside a changed base (init_lora_weights={start})")
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
