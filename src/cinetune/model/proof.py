"""A pack proves itself: its logits are those of its questions passed one by one, on this machine and these versions.

The reference knows nothing of packs: a question behind its prefix, with the model's own positions and causal mask.
"""

from __future__ import annotations

import torch

from cinetune.errors import InputError
from cinetune.model import float8
from cinetune.model.base import answer_logits
from cinetune.model.packing import Pack, collate, normalise, placed

# How far logits may differ by rounding alone, as a share of their length. With 32 layers of random weights it was
# 2.5e-6 in float32 and 0.027 in bfloat16; one wrong position made 0.19 in both, one token of a wrong segment 0.05.
LIMITS = {torch.float32: 1e-4, torch.float16: 0.02, torch.bfloat16: 0.08}
FLOAT8_LIMIT = 0.2


def limit_of(model: torch.nn.Module) -> float:
    """How far a pack may differ in the type that a model computes in."""
    if float8.is_in(model):
        return FLOAT8_LIMIT
    return LIMITS[model.get_input_embeddings().weight.dtype]


@torch.inference_mode()
def pack_difference(model: torch.nn.Module, item: Pack, prefix_tokens: int, pad_token_id: int) -> float:
    """The largest difference of an answer's logits from those of a separate pass, as a share of their length."""
    was_training = model.training
    model.eval()
    weight = model.get_input_embeddings().weight
    together = answer_logits(model, collate([item], pad_token_id, weight.dtype, weight.device)).float()
    frames = None
    if item.frames is not None:
        pixels = normalise(placed(torch.from_numpy(item.frames)[None], weight.device))
        frames = pixels.to(weight.dtype)
    largest, start = 0.0, prefix_tokens
    for question in range(int(item.owners.max()) + 1):
        slots = item.slots[item.owners == question]
        # The last of its slots is the last token that is read of it.
        own = item.input_ids[start : slots[-1] + 1]
        ids = torch.tensor([*item.input_ids[:prefix_tokens], *own], device=weight.device)[None]
        places = torch.from_numpy(slots - start + prefix_tokens).to(weight.device)
        alone = (
            model(input_ids=ids, pixel_values_videos=frames, use_cache=False, logits_to_keep=places).logits[0].float()
        )
        packed = together[torch.from_numpy(item.owners == question).to(weight.device)]
        difference = (packed - alone).norm(dim=-1) / alone.norm(dim=-1)
        # A number that is none must not pass for a small one.
        largest = max(largest, float(difference.nan_to_num(float("inf")).max()))
        start = int(slots[-1]) + 1
    model.train(was_training)
    return largest


def check_pack(difference: float, model: torch.nn.Module) -> None:
    """Raises InputError where a pack is further from separate passes than rounding explains."""
    limit = limit_of(model)
    if not difference <= limit:
        raise InputError(
            f"a pack's logits differ by {difference:.2g} of their length from those of its questions passed one by "
            f"one, where rounding explains {limit:g}: this machine's versions of torch and transformers cannot be "
            "trained with, so install those of pyproject.toml."
        )
