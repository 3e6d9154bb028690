"""Load the base (full precision, NF4 or float8), attach or load LoRA on its language model, check what was loaded."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoTokenizer,
    BitsAndBytesConfig,
    VideoLlavaConfig,
    VideoLlavaForConditionalGeneration,
)

from cinetune import float8
from cinetune.attention import IMPLEMENTATION
from cinetune.errors import InputError
from cinetune.packing import Encoder
from cinetune.params import ModelParams, Params, TrainParams

if TYPE_CHECKING:
    # Importing PEFT takes four seconds, which those who need only the base should not wait for.
    from peft import PeftModel

# Names of both vision towers end like those of the language model, so the pattern begins at the latter.
LORA_TARGETS = r".*language_model\.layers\.\d+\.(self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj)"
# bitsandbytes matches these from the start of the full name; the towers and the projector stay unquantised.
NOT_QUANTISED = ["model.video_tower", "model.image_tower", "model.multi_modal_projector", "lm_head"]
# Where older transformers had what now stands elsewhere in a Video-LLaVA; the last only where towers have no such part.
OLDER_NAMES = (
    (r"^base_model\.model\.language_model\.model\.", "base_model.model.model.language_model."),
    (r"^base_model\.model\.(video_tower|image_tower|multi_modal_projector)\.", r"base_model.model.model.\1."),
)
OLDER_TOWERS = (r"\b(video_tower|image_tower)\.vision_model\.", r"\1.")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

# MKL's vector functions take shape at their first call. Where that comes from several threads at once, as the cosines
# of rotary positions do, one process in some 250 has rounded it otherwise, and a training ended with other bits.
torch.zeros(1).cos()


def check_base(base: str) -> None:
    """Refuse a local folder that holds no Video-LLaVA; anything that is no folder is taken for a hub id."""
    path = Path(base)
    looks_local = path.exists() or base.count("/") != 1 or base.startswith((".", "/", "~"))
    if not looks_local:
        return
    config = path / "config.json"
    if not config.is_file():
        remedy = "run `dvc pull base-model.dvc`, or name a hub id or another folder as model.base"
        raise InputError(f"base model {base!r} is not a model folder (it has no config.json): {remedy}.")
    try:
        kind = json.loads(config.read_text(encoding="utf-8")).get("model_type")
    except (ValueError, AttributeError):
        kind = None
    if kind != "video_llava":
        raise InputError(f"base model {base!r} is of type {kind!r}: a folder of type 'video_llava' is needed.")


def load_base(params: ModelParams, device: str | torch.device) -> tuple[VideoLlavaForConditionalGeneration, Any]:
    """The frozen base model in evaluation mode and its tokenizer.

    Raises InputError when `params.base` is no Video-LLaVA or cannot be read.
    """
    check_base(params.base)
    if params.quantization == "fp8":
        float8.check_device(device)
    dtype = DTYPES[params.dtype]
    options: dict[str, Any] = {"dtype": dtype, "attn_implementation": IMPLEMENTATION, "device_map": {"": device}}
    # The other format is pickle, which runs what its author likes.
    options["use_safetensors"] = True
    if params.quantization == "nf4":
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
            llm_int8_skip_modules=NOT_QUANTISED,
        )
    revision = params.revision or None
    try:
        # Without a network each file costs half a minute of patience: one is enough to know.
        VideoLlavaConfig.from_pretrained(params.base, revision=revision)
        tokenizer = AutoTokenizer.from_pretrained(params.base, revision=revision)
        model, loading = VideoLlavaForConditionalGeneration.from_pretrained(
            params.base, revision=revision, output_loading_info=True, **options
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"base model {params.base!r} cannot be loaded: {reason}") from None
    if loading["missing_keys"]:
        # transformers only warns, and leaves random weights in their place.
        missing = sorted(loading["missing_keys"])
        raise InputError(f"base model {params.base!r} lacks {len(missing)} tensors, first {missing[0]!r}: get it anew.")
    model.requires_grad_(False)
    if params.quantization == "fp8":
        replace_projections(model, float8.Float8Linear)
    return model.eval(), tokenizer


def replace_projections(model: torch.nn.Module, make: Callable[[Any], torch.nn.Module]) -> None:
    """Put what `make` makes of it in the place of each linear layer of the language model; the rest stays as it is.

    One after another, so that no more than one of them is there twice.
    """
    for name in [name for name, _ in model.named_modules() if re.fullmatch(LORA_TARGETS, name)]:
        model.set_submodule(name, make(model.get_submodule(name)))


def encoder_for(
    config: VideoLlavaConfig, tokenizer: Any, num_frames: int, max_subtitle_tokens: int, truncate: str = "end"
) -> Encoder:
    vision = config.vision_config
    # Every patch of every frame, and each frame's class token.
    num_video_tokens = num_frames * ((vision.image_size // vision.patch_size) ** 2 + 1)
    return Encoder(tokenizer, config.video_token_id, num_video_tokens, max_subtitle_tokens, truncate)


def encoder_of(params: Params, config: VideoLlavaConfig, tokenizer: Any) -> Encoder:
    """`encoder_for` with the numbers of a whole params file."""
    prompt = params.prompt
    return encoder_for(config, tokenizer, params.frames.num_frames, prompt.max_subtitle_tokens, prompt.truncate)


def check_frame_size(config: VideoLlavaConfig, size: int) -> None:
    wanted = config.vision_config.image_size
    if size != wanted:
        raise InputError(
            f"frames.size is {size}, but the base model sees {wanted} pixels: set frames.size to {wanted}."
        )


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
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"adapter {str(folder)!r} does not fit the base model: {reason}") from None
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


def default_device() -> str:
    """Of a process that is alone; `processes.device` is for one of several."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def _is_lora(name: str) -> bool:
    return re.search(LORA_TARGETS + r"\.lora_", name) is not None


def answer_logits(model: torch.nn.Module, batch: dict[str, Any]) -> torch.Tensor:
    """Logits [S, vocabulary] at the batch's slots; the head is applied nowhere else when the batch is one pack."""
    inputs = {name: value for name, value in batch.items() if name not in ("slots", "targets", "weights")}
    if batch["input_ids"].shape[0] == 1:
        return model(**inputs, use_cache=False, logits_to_keep=batch["slots"]).logits[0]
    return model(**inputs, use_cache=False).logits.flatten(0, 1)[batch["slots"]]
