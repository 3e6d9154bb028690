"""A pack proves itself: its logits are those of its questions passed one by one, on this machine and these versions.

The reference knows nothing of packs: a question behind its prefix, with the model's own positions and causal mask.
"""

from __future__ import annotations

import torch

from cinetune.errors import InputError
from cinetune.model.base import answer_logits
from cinetune.model.float8 import unrounded_inputs
from cinetune.model.packing import Pack, collate, normalise, placed

# How far logits may differ by rounding alone, as a share of their length: some three to five times what it was with 32
# layers of random weights in bfloat16 (0.027) and float16 (0.004), and 40 times in float32 (2.5e-6). One wrong position
# made 0.15 to 0.22 in each type, a wrong border of the mask 0.6, a single token of a wrong segment 0.05 to 0.08, which
# bfloat16 may hide.
LIMITS = {torch.float32: 1e-4, torch.float16: 0.02, torch.bfloat16: 0.08}


def pack_difference(model: torch.nn.Module, item: Pack, prefix_tokens: int, pad_token_id: int) -> float:
    """The largest difference of an answer's logits from those of a separate pass, as a share of their length.

    Float8 rounds each token by itself, so it cannot mix questions, but would hide that they are: inputs are not
    rounded to it here.
    """
    with torch.inference_mode(), unrounded_inputs(model):
        return _difference(model, item, prefix_tokens, pad_token_id)


def _difference(model: torch.nn.Module, item: Pack, prefix_tokens: int, pad_token_id: int) -> float:
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
    limit = LIMITS[model.get_input_embeddings().weight.dtype]
    if not difference <= limit:
        raise InputError(
            f"a pack's logits differ by {difference:.2g} of their length from those of its questions passed one by "
            f"one, where rounding explains {limit:g}: this machine's versions of torch and transformers cannot be "
            "trained with, so install those of pyproject.toml."
        )
