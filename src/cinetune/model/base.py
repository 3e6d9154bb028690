"""Load the base model (full precision, NF4 or float8) and check what was loaded."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from transformers import BitsAndBytesConfig, VideoLlavaConfig, VideoLlavaForConditionalGeneration

from cinetune.errors import InputError
from cinetune.model import float8, lookup
from cinetune.model.attention import IMPLEMENTATION
from cinetune.model.fast import last_layer
from cinetune.model.shape import UNUSABLE, check_files, read_shape, unusable
from cinetune.params import ModelParams

logger = logging.getLogger(__name__)

# Names of both vision towers end like those of the language model, so the pattern begins at the latter.
LORA_TARGETS = r".*language_model\.layers\.\d+\.(self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj)"
# bitsandbytes matches these from the start of the full name; the towers and the projector stay unquantised.
NOT_QUANTISED = ["model.video_tower", "model.image_tower", "model.multi_modal_projector", "lm_head"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

# MKL's vector functions take shape at their first call. Where that comes from several threads at once, as the cosines
# of rotary positions do, one process in some 250 has rounded it otherwise, and a training ended with other bits.
torch.zeros(1).cos()


def load_base(params: ModelParams, device: str | torch.device) -> tuple[VideoLlavaForConditionalGeneration, Any]:
    """The frozen base model in evaluation mode and its tokenizer.

    Raises InputError when `params.base` is no Video-LLaVA or cannot be read.
    """
    lookup.check_base(params.base)
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
    if torch.device(device).type == "cpu" and torch.backends.mps.is_available():
        logger.warning("the CPU computes: packs were never checked on Apple's GPU (MPS), so it is not used.")
    config, tokenizer = read_shape(params)
    folder = lookup.folder_of(params)
    check_files(params, config, folder)
    try:
        model, loading = VideoLlavaForConditionalGeneration.from_pretrained(folder, output_loading_info=True, **options)
    except UNUSABLE as error:
        raise unusable(params, error) from None
    if loading["missing_keys"]:
        raise AssertionError(f"weights of {params.base!r} were left out: {sorted(loading['missing_keys'])[:3]}")
    model.requires_grad_(False)
    if params.quantization == "fp8":
        replace_projections(model, float8.Float8Linear)
    last_layer.narrow(model)
    return model.eval(), tokenizer


def replace_projections(model: torch.nn.Module, make: Callable[[Any], torch.nn.Module]) -> None:
    """Put what `make` makes of it in the place of each linear layer of the language model; the rest stays as it is.

    One after another, so that no more than one of them is there twice.
    """
    for name in [name for name, _ in model.named_modules() if re.fullmatch(LORA_TARGETS, name)]:
        model.set_submodule(name, make(model.get_submodule(name)))


def check_frame_size(config: VideoLlavaConfig, size: int) -> None:
    """Raises InputError unless frames have the pixels a side that the base sees."""
    wanted = config.vision_config.image_size
    if size != wanted:
        raise InputError(
            f"frames.size is {size}, but the base model sees {wanted} pixels: set frames.size to {wanted}."
        )


def default_device() -> str:
    """Of a process that is alone; `distributed.device` is for one of several. Apple's GPUs are not used."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def answer_logits(model: torch.nn.Module, batch: dict[str, Any]) -> torch.Tensor:
    """Logits [S, vocabulary] at the batch's slots; the head is applied nowhere else when the batch is one pack.

    On a GPU nor is the last layer, and nothing waits for what is computed there; on a CPU, where that would round
    otherwise, all of the layer is computed.
    """
    inputs = {name: value for name, value in batch.items() if name not in ("slots", "targets", "weights")}
    slots = batch["slots"]
    if batch["input_ids"].shape[0] > 1:
        return model(**inputs, use_cache=False).logits.flatten(0, 1)[slots]
    if slots.is_cuda and "questions" in inputs:
        inputs |= {"answers": slots, "inputs_embeds": embedded(model, inputs.pop("input_ids"), inputs)}
        inputs.pop("pixel_values_videos", None)
    return model(**inputs, use_cache=False, logits_to_keep=slots).logits[0]


def embedded(model: Any, ids: torch.Tensor, inputs: Mapping[str, Any]) -> torch.Tensor:
    """Embeddings [1, T, hidden] of a pack's ids [1, T] with its video's in their places.

    As the model makes them, whose own check of their number waits for the GPU; here the GPU checks it by itself.
    """
    model = getattr(model, "module", model)
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    words = base.get_input_embeddings()(ids)
    if "pixel_values_videos" not in inputs:
        return words
    seen = base.model.get_video_features(pixel_values_videos=inputs["pixel_values_videos"], return_dict=True)
    features = seen.pooler_output.flatten(0, 1).to(words.dtype)
    is_video = ids == base.config.video_token_id
    torch._assert_async(is_video.sum() == features.shape[0], "a pack has not as many video tokens as its frames make")
    return words.masked_scatter(is_video[..., None], features)
