"""What a base's own files say, compared with each other and with what is done here before any weights are loaded."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import HTTPError, StrictDataclassError
from safetensors import SafetensorError, safe_open
from transformers import AutoTokenizer, VideoLlavaConfig, VideoLlavaForConditionalGeneration

from cinetune.errors import InputError, reason_of
from cinetune.model import lookup
from cinetune.model.packing import CLIP_DEVIATION, CLIP_MEAN
from cinetune.params import ModelParams
from cinetune.task.prompts import VIDEO

# What transformers raises for files that it cannot use.
UNUSABLE = (
    OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError, ImportError,
    SafetensorError, StrictDataclassError, HTTPError,
)  # fmt: skip
PICTURES = ("preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json")
BICUBIC = 3
# Parts of tensors' names that have come and gone with the versions of transformers.
MOVING_PARTS = {"model", "language_model", "vision_model"}
# What versions of transformers have saved beside the weights, and compute anew.
COMPUTED = ("position_ids", "inv_freq")
# Others may look at fewer tokens, or at both sides.
KINDS = {"text_config": "llama", "vision_config": "clip_vision_model"}
# No base comes near; as many as a damaged configuration may ask for would fill the memory by their names alone.
MAX_LAYERS = 1000


def read_shape(params: ModelParams, is_local: bool = False) -> tuple[VideoLlavaConfig, Any]:
    """A base's configuration and tokenizer, checked against each other; `is_local`: no hub is asked.

    Raises InputError where they cannot be used, and OSError where a base of the hub `is_local` and not there.
    """
    given: dict[str, Any] = {"revision": params.revision or None, "local_files_only": is_local}
    folder = None if lookup.is_hub_id(params.base) else Path(params.base)
    if folder and not (folder / "tokenizer.json").is_file():
        raise InputError(
            f"base model {params.base!r} has no tokenizer.json, from which alone its tokenizer is read: where "
            "transformers and sentencepiece are installed, save it with AutoTokenizer.from_pretrained(...)"
            ".save_pretrained(...)."
        )
    try:
        # Without a network each file costs half a minute of patience: one is enough to know.
        content, _ = VideoLlavaConfig.get_config_dict(params.base, **given)
        _check_parts(params, content)
        config = VideoLlavaConfig.from_pretrained(params.base, **given)
        tokenizer = AutoTokenizer.from_pretrained(params.base, **given)
        _check_tokens(params, config, tokenizer)
        _check_layers(params, config, content)
    except InputError:
        raise
    except UNUSABLE as error:
        if is_local and not folder and isinstance(error, OSError):
            raise
        raise unusable(params, error) from None
    if folder:
        _check_pictures(params, config, folder)
    return config, tokenizer


def unusable(params: ModelParams, error: BaseException) -> InputError:
    if lookup.is_hub_id(params.base) and isinstance(error, OSError | HTTPError):
        return lookup.of_hub_base(params, error)
    return InputError(f"base model {params.base!r} cannot be loaded: {reason_of(error) or type(error).__name__}.")


def check_files(params: ModelParams, config: VideoLlavaConfig, folder: Path) -> None:
    """Raises InputError unless a base's files, which are here, say what its configuration says.

    The weights' headers must hold the tensors that it asks for, in its shapes.
    """
    _check_pictures(params, config, folder)
    files = lookup.weights_files(folder)
    if not files:
        raise InputError(
            f"base model {params.base!r} cannot be loaded: it has neither {lookup.WEIGHTS} nor {lookup.INDEX} (other "
            "formats are not read)."
        )
    held: dict[str, tuple[int, ...]] = {}
    try:
        for path in files:
            if path.suffix == ".safetensors":
                with safe_open(path, "pt") as file:
                    held |= {_stable(name): tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except UNUSABLE as error:
        raise unusable(params, error) from None
    model = _empty(config)
    tied = {_stable(name) for name in getattr(model, "_tied_weights_keys", None) or ()}
    is_tied = bool(getattr(config, "tie_word_embeddings", False))
    wanted = {_stable(name): tuple(weight.shape) for name, weight in model.named_parameters(remove_duplicate=False)}
    missing = sorted(name for name in wanted if name not in held and not (is_tied and name in tied))
    if missing:
        # transformers only warns, and leaves random weights in their place.
        raise InputError(
            f"base model {params.base!r} lacks {len(missing)} tensors, first {missing[0]!r}: fetch it again."
        )
    left = sorted(name for name in held.keys() - wanted.keys() if not name.endswith(COMPUTED))
    if left:
        # A config with fewer layers makes another, smaller model.
        raise InputError(
            f"base model {params.base!r} holds {len(left)} tensors that its config.json has no place for, first "
            f"{left[0]!r}: fetch it again, or mend the config."
        )
    wrong = sorted(name for name in wanted if held.get(name, wanted[name]) != wanted[name])
    if wrong:
        found, asked = list(held[wrong[0]]), list(wanted[wrong[0]])
        raise InputError(
            f"base model {params.base!r} cannot be loaded: {len(wrong)} tensors have other shapes than its config.json "
            f"asks for, first {wrong[0]!r} ({found}, not {asked}): fetch it again, or mend the config."
        )


def _stable(name: str) -> str:
    """A tensor's name without the parts that have moved."""
    return ".".join(part for part in name.split(".") if part not in MOVING_PARTS)


def _empty(config: VideoLlavaConfig) -> VideoLlavaForConditionalGeneration:
    with torch.device("meta"):
        return VideoLlavaForConditionalGeneration(copy.deepcopy(config))


def _check_parts(params: ModelParams, content: Mapping[str, Any]) -> None:
    for part in ("text_config", "vision_config"):
        if not isinstance(content.get(part), dict):
            # transformers would fill in the 7B's numbers.
            raise InputError(f"base model {params.base!r} has no {part} in its config.json: fetch it again.")
    quantised = content.get("quantization_config")
    if quantised:
        kind = quantised.get("quant_method", "another way") if isinstance(quantised, dict) else quantised
        raise InputError(
            f"base model {params.base!r} is saved quantised ({kind}), but model.quantization={params.quantization} "
            "quantises full weights as they are loaded: name the base in full precision."
        )


def _check_tokens(params: ModelParams, config: VideoLlavaConfig, tokenizer: Any) -> None:
    vocabulary = tokenizer.get_vocab()
    own, said = vocabulary.get(VIDEO), config.video_token_id
    if own != said:
        raise InputError(
            f"base model {params.base!r} has {said} as its video token in config.json, but its tokenizer has "
            f"{own} for {VIDEO}: they do not belong together, so fetch both again."
        )
    rows, last = config.text_config.vocab_size, max(vocabulary.values())
    if last >= rows:
        raise InputError(
            f"base model {params.base!r} has {rows} tokens in config.json, but its tokenizer makes ids up to {last}: "
            "they do not belong together, so fetch both again."
        )


def _check_layers(params: ModelParams, config: VideoLlavaConfig, content: Mapping[str, Any]) -> None:
    """That the configuration makes a model, and that the tower has the layers that are read."""
    for name, part in (("text_config", config.text_config), ("vision_config", config.vision_config)):
        kind = KINDS[name]
        if part.model_type != kind:
            raise InputError(
                f"base model {params.base!r} has {name}.model_type={part.model_type!r} in its config.json, and packs "
                f"are right with {kind!r} alone: another base is needed."
            )
        if not 1 <= part.num_hidden_layers <= MAX_LAYERS:
            raise InputError(
                f"base model {params.base!r} has {name}.num_hidden_layers={part.num_hidden_layers} in its config.json, "
                f"and 1 to {MAX_LAYERS} are possible: fetch it again."
            )
    try:
        _empty(config)
    except (*UNUSABLE, AssertionError) as error:
        value = error.args[0] if isinstance(error, KeyError) and error.args else None
        place = next((f"{name}={value!r}" for name, held in _entries(content) if held == value), "")
        said = f"{place} is not known" if value is not None and place else reason_of(error) or type(error).__name__
        raise InputError(f"base model {params.base!r} cannot be made of its config.json: {said}.") from None
    layers, chosen = config.vision_config.num_hidden_layers, config.vision_feature_layer
    for layer in chosen if isinstance(chosen, list | tuple) else [chosen]:
        if not -layers - 1 <= layer <= layers:
            raise InputError(
                f"base model {params.base!r} reads layer {layer} of its vision tower (vision_feature_layer), which has "
                f"{layers}: mend its config.json."
            )


def _entries(content: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        if isinstance(value, dict):
            yield from _entries(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def _check_pictures(params: ModelParams, config: VideoLlavaConfig, folder: Path) -> None:
    """That frames are prepared here as the base's own processor says, where it says so."""
    size = config.vision_config.image_size
    for path in (folder / name for name in PICTURES):
        if not path.is_file():
            continue
        try:
            said = json.loads(path.read_text(encoding="utf-8"))
            parts = [said, *(part for part in said.values() if isinstance(part, dict))]
        except (ValueError, AttributeError):
            raise InputError(
                f"base model {params.base!r} has a {path.name} that cannot be read: fetch it again."
            ) from None
        for name, value, own in (
            (name, part[name], own) for part in parts for name, own in _pictures(size) if name in part
        ):
            if value is not None and not _is_same(value, own):
                raise InputError(
                    f"base model {params.base!r} has {name}={value} in its {path.name}, but frames are made with {own} "
                    "here: another base is needed."
                )


def _pictures(size: int) -> list[tuple[str, Any]]:
    """How frames are made here."""
    return [
        ("image_mean", list(CLIP_MEAN)),
        ("image_std", list(CLIP_DEVIATION)),
        ("rescale_factor", 1 / 255),
        ("resample", BICUBIC),
        ("do_normalize", True),
        ("do_rescale", True),
        ("size", size),
        ("crop_size", size),
    ]


def _is_same(value: Any, own: Any) -> bool:
    """A size may be given as one number, or by sides and edges."""
    if isinstance(value, dict):
        return all(_is_same(side, own) for side in value.values())
    values, owns = (held if isinstance(held, list | tuple) else [held] for held in (value, own))
    if len(values) != len(owns):
        return False
    return all(
        isinstance(one, int | float) and math.isclose(one, other, rel_tol=1e-4)
        for one, other in zip(values, owns, strict=True)
    )
