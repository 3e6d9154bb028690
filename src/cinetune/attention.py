"""The attention of packs: what a pack's questions never look at is not computed.

A pack as one sequence with a dense mask multiplies every question with all its siblings, only to hide the result.
Here the prefix is one causal product, and the questions are a batch of their own, each with the prefix's keys and
values before its own. Hugging Face's models call it by name (`attn_implementation`); where a batch brings no layout
(several packs, or one new token a question behind a cache) it is `sdpa` with the mask that was given.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

SHARED_PREFIX = "shared_prefix"
# Only the language model reads packs. Eager attention must not be used with masks of booleans, nor flash attention
# with any mask: both give other numbers without a word.
IMPLEMENTATION = {"text_config": SHARED_PREFIX, "vision_config": "sdpa", "": "sdpa"}


def question_layout(lengths: list[int], start: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Where questions of some lengths, one after another from position `start`, stand in a batch of their own.

    Returns int64 [Q, S], the position in the sequence of each token (short questions repeat their last), and int64
    [sum of lengths], the place of each token in the flattened Q x S.
    """
    longest = max(lengths)
    ends = torch.tensor(lengths).cumsum(0)
    begins = torch.cat([torch.zeros(1, dtype=torch.int64), ends[:-1]])
    steps = torch.arange(longest)
    inside = steps < torch.tensor(lengths)[:, None]
    positions = start + torch.minimum(begins[:, None] + steps, ends[:, None] - 1)
    return positions, inside.flatten().nonzero()[:, 0]


def shared_prefix_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    questions: tuple[torch.Tensor, torch.Tensor] | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of one pack, or of its questions behind a cached prefix.

    query: [1, heads, T, width], key and value: as long, or longer by the prefix; questions: `question_layout`'s.
    Returns [1, T, heads, width] and no weights.
    """
    if questions is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **options
        )
    positions, places = questions
    count, longest = positions.shape
    cached = key.shape[2] - query.shape[2]
    prefix = key.shape[2] - len(places)
    settings = {"scale": scaling, "dropout_p": dropout, "enable_gqa": query.shape[1] != key.shape[1]}

    def apart(states: torch.Tensor, skipped: int) -> torch.Tensor:
        picked = states[0].index_select(1, (positions - skipped).flatten())
        return picked.unflatten(1, (count, longest)).transpose(0, 1)

    def with_prefix(states: torch.Tensor) -> torch.Tensor:
        return torch.cat([states[:, :, :prefix].expand(count, -1, -1, -1), apart(states, 0)], dim=2)

    # The last rows of a causal square: all of the prefix, and of its own tokens those up to itself.
    visible = torch.ones(longest, prefix + longest, dtype=torch.bool, device=query.device).tril(prefix)
    behind = scaled_dot_product_attention(
        apart(query, cached), with_prefix(key), with_prefix(value), attn_mask=visible, **settings
    )
    mixed = behind.transpose(0, 1).flatten(1, 2).index_select(1, places)
    if not cached:
        ahead = (states[:, :, :prefix] for states in (query, key, value))
        mixed = torch.cat([scaled_dot_product_attention(*ahead, is_causal=True, **settings)[0], mixed], dim=1)
    return mixed.transpose(0, 1)[None].contiguous(), None


AttentionInterface.register(SHARED_PREFIX, shared_prefix_attention)
AttentionMaskInterface.register(SHARED_PREFIX, sdpa_mask)
