"""How the language model's layers run in a training: compiled, and recomputed in the backward pass to save memory.

Both are done to the layers in place and undone afterwards; the numbers change by the rounding of fused operations.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from cinetune.errors import InputError
from cinetune.model.sizes import kept_bytes
from cinetune.params import TrainParams
from cinetune.runtime import memory

logger = logging.getLogger(__name__)


def of(model: torch.nn.Module) -> list[torch.nn.Module]:
    """The language model's layers, of a base or of one with an adapter."""
    return list(_base(model).language_model.layers)


def of_tower(model: torch.nn.Module) -> list[torch.nn.Module]:
    """The layers that look at a video's frames."""
    return [part for part in _base(model).video_tower.modules() if isinstance(part, GradientCheckpointingLayer)]


def _base(model: torch.nn.Module) -> Any:
    whole: Any = model.get_base_model() if hasattr(model, "get_base_model") else model
    return whole.model


@contextmanager
def prepared(model: torch.nn.Module, params: TrainParams, tokens: int) -> Iterator[None]:
    """The layers as `params.compile` and `params.activation_checkpointing` want them, for packs of up to `tokens`."""
    is_compiled = wants_compiling(params.compile, model.get_input_embeddings().weight.device)
    count = num_recomputed(model, params.activation_checkpointing, tokens)
    if is_compiled or count:
        logger.info("train: layers compiled: %s, recomputed: %d of %d.", is_compiled, count, len(of(model)))
    try:
        prepare(model, is_compiled, count)
        yield
    finally:
        restore(model)


def prepare(model: torch.nn.Module, is_compiled: bool, num_recomputed: int) -> None:
    """Compile each layer, once for all of them and for packs of all lengths.

    The first `num_recomputed` of the language model keep nothing for the backward pass but their input.
    """
    for number, layer in enumerate(of(model)):
        run = layer.forward
        if is_compiled:
            run = torch.compile(run, dynamic=True)
        if number < num_recomputed:
            run = partial(checkpoint, run, use_reentrant=False)
        layer.forward = run
    if is_compiled:
        for layer in of_tower(model):
            layer.forward = torch.compile(layer.forward, dynamic=False)


def restore(model: torch.nn.Module) -> None:
    """Undo `prepare`."""
    for layer in [*of(model), *of_tower(model)]:
        vars(layer).pop("forward", None)


def wants_compiling(wanted: str, device: torch.device) -> bool:
    """`auto`: on a GPU, if a compiler works there, and a line where none does."""
    if wanted == "false" or (wanted == "auto" and device.type != "cuda"):
        return False
    problem = _problem(device)
    if problem and wanted == "true":
        raise InputError(f"train.compile=true, but torch.compile does not work here ({problem}): set it to false.")
    if problem:
        logger.warning("train: torch.compile does not work here (%s): the layers are not compiled.", problem)
    return not problem


def _problem(device: torch.device) -> str:
    """Why nothing can be compiled, or nothing."""
    try:
        torch.compile(lambda values: values * 2 + 1, dynamic=True)(torch.ones(8, device=device))
    except (RuntimeError, ImportError, OSError) as error:
        return str(error).strip().splitlines()[0][:150] if str(error).strip() else type(error).__name__
    return ""


def num_recomputed(model: torch.nn.Module, wanted: str, tokens: int) -> int:
    """`auto`: as many layers as do not fit into the GPU's free memory beside the others; none on a CPU."""
    count = len(of(model))
    if wanted in ("none", "all"):
        return count if wanted == "all" else 0
    if wanted != "auto":
        return _as_count(wanted, count)
    weight = model.get_input_embeddings().weight
    if weight.device.type != "cuda":
        return 0
    config, width = model.config.text_config, weight.element_size()
    inputs = count * tokens * config.hidden_size * width
    one = kept_bytes(tokens, config.hidden_size, config.intermediate_size, width)
    return count_to_recompute(count, one, inputs, memory.free_bytes())


def count_to_recompute(count: int, one: int, inputs: int, free: int) -> int:
    """Layers of `count` that must keep nothing where each of the others keeps `one` of `free` bytes."""
    # The layer at work needs about two more of its kind.
    fitting = (free - inputs - 2 * one) // one
    return count - min(count, max(0, fitting))


def _as_count(wanted: str, count: int) -> int:
    if not wanted.isascii() or not wanted.isdigit() or int(wanted) > count:
        raise InputError(
            f"train.activation_checkpointing must be auto, none, all or a number of the base's {count} layers, "
            f"got {wanted!r}."
        )
    return int(wanted)
