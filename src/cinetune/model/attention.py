"""The attention of packs: what a pack's questions never look at is not computed.

A pack as one sequence with a dense mask multiplies every question with all its siblings, only to hide the result.
Here a question's tokens look at the prefix and at their own question in two products without any mask, joined by
their softmax's sums; on a CPU the questions are a batch of their own behind the prefix's keys and values. Hugging
Face's models call it by name (`attn_implementation`); where a batch brings no layout (several packs, or one new token
a question behind a cache) it is `sdpa` with the mask that was given.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from cinetune.model.fast import flash

SHARED_PREFIX = "shared_prefix"
# Only the language model reads packs. Eager attention must not be used with masks of booleans, nor flash attention
# with any mask: both give other numbers without a word.
IMPLEMENTATION = {"text_config": SHARED_PREFIX, "vision_config": "sdpa", "": "sdpa"}
HALVES = (torch.bfloat16, torch.float16)

# Where the questions of a pack stand. positions: int64 [Q, S], the place in the sequence of each question's tokens
# (short ones repeat their last); places: int64 [tokens of all questions], of each token in the flattened Q x S;
# borders: int32 [Q + 2], where the prefix and each question begin, and the end.
Layout = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def question_layout(lengths: list[int], start: int) -> Layout:
    """The layout of questions of some lengths, one after another behind a prefix of `start` tokens."""
    longest = max(lengths, default=0)
    ends = torch.tensor(lengths, dtype=torch.int64).cumsum(0)
    begins = ends - torch.tensor(lengths, dtype=torch.int64)
    steps = torch.arange(longest)
    inside = steps < torch.tensor(lengths)[:, None]
    positions = start + torch.minimum(begins[:, None] + steps, ends[:, None] - 1)
    borders = torch.cat([torch.tensor([0, start]), start + ends]).to(torch.int32)
    return positions, inside.flatten().nonzero()[:, 0], borders


def shared_prefix_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    questions: Layout | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of one pack, or of its questions behind a cached prefix.

    query: [1, heads, T, width], key and value: as long, or longer by the prefix. Returns [1, T, heads, width] and no
    weights.
    """
    if questions is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **options
        )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if _is_flash(query) and not dropout:
        rows, keys, values = (states[0].transpose(0, 1) for states in (query, key, value))
        return in_parts(rows, keys, values, questions, scale)[None], None
    return _as_batch(query, key, value, questions, scale, dropout), None


def _is_flash(states: torch.Tensor) -> bool:
    """The flash kernels know no single precision."""
    return states.is_cuda and states.dtype in HALVES


def name_of(model: torch.nn.Module) -> str:
    """What computes the attention of packs in a model, a base or one with an adapter."""
    weight, config = model.get_input_embeddings().weight, model.config.text_config
    if not _is_flash(weight):
        return f"{SHARED_PREFIX}, questions as a batch"
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    group = config.num_attention_heads // config.num_key_value_heads
    return f"{SHARED_PREFIX}, {flash.kernels_for(weight.device, weight.dtype, width, group).name}"


def _kernels(query: torch.Tensor, key: torch.Tensor) -> flash.Kernels:
    """For query and key as `_flash` takes them."""
    return flash.kernels_for(query.device, query.dtype, query.shape[-1], query.shape[1] // key.shape[1])


# torch.compile fails on its shapes, and it is little of what a compiled layer does.
@torch.compiler.disable
def _as_batch(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, questions: Layout, scale: float, dropout: float
) -> torch.Tensor:
    """The prefix as one causal product, then the questions as a batch, each behind the prefix's keys and values."""
    positions, places, _ = questions
    count, longest = positions.shape
    cached = key.shape[2] - query.shape[2]
    prefix = key.shape[2] - len(places)
    settings = {"scale": scale, "dropout_p": dropout, "enable_gqa": query.shape[1] != key.shape[1]}

    def apart(states: torch.Tensor, skipped: int) -> torch.Tensor:
        picked = states[0].index_select(1, (positions - skipped).flatten())
        return picked.unflatten(1, (count, longest)).transpose(0, 1)

    def with_prefix(states: torch.Tensor) -> torch.Tensor:
        return torch.cat([states[:, :, :prefix].expand(count, -1, -1, -1), apart(states, 0)], dim=2)

    parts = []
    if not cached:
        ahead = [states[:, :, :prefix] for states in (query, key, value)]
        parts.append(scaled_dot_product_attention(ahead[0], ahead[1], ahead[2], is_causal=True, **settings)[0])
    if count:
        # The last rows of a causal square: all of the prefix, and of its own tokens those up to itself.
        visible = torch.ones(longest, prefix + longest, dtype=torch.bool, device=query.device).tril(prefix)
        behind = scaled_dot_product_attention(
            apart(query, cached), with_prefix(key), with_prefix(value), attn_mask=visible, **settings
        )
        parts.append(behind.transpose(0, 1).flatten(1, 2).index_select(1, places))
    return torch.cat(parts, dim=1).transpose(0, 1)[None].contiguous()


def in_parts(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, questions: Layout, scale: float
) -> torch.Tensor:
    """The same on a GPU in half precision, [T, heads, width]: see `_flash`."""
    positions, places, borders = questions
    longest, prefix = positions.shape[1], key.shape[0] - places.shape[0]
    return _flash(query, key, value, borders, prefix, longest, scale)[0]


@torch.library.custom_op("cinetune::shared_prefix", mutates_args=())
def _flash(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    borders: torch.Tensor,
    prefix: int,
    longest: int,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Each segment (prefix or question) on its own, then the questions on the prefix; joined as one softmax.

    query [T, heads, width]; key, value: as long, or longer by the cached prefix. Returns what was mixed, as query, and
    the logarithm of each softmax's sum [heads, T], float32.
    """
    cached, run = key.shape[0] - query.shape[0], _kernels(query, key).forward
    # Where the segments of the query begin and end, and the tokens of the longest.
    starts, max_tokens = (borders[1:] - prefix, longest) if cached else (borders, max(prefix, longest))
    own, sums = run(query, key[cached:], value[cached:], starts, max_tokens, scale)
    behind = key.shape[0] - prefix
    if not behind:
        return own, sums
    ahead, more = run(query[-behind:], key[:prefix], value[:prefix], None, prefix, scale)
    mine = sums[:, -behind:]
    share = torch.sigmoid(more - mine).T[..., None].to(own.dtype)
    own[-behind:].lerp_(ahead, share)
    mine.copy_(torch.logaddexp(mine, more))
    return own, sums


@_flash.register_fake
def _flash_shapes(query: torch.Tensor, *rest: Any) -> tuple[torch.Tensor, torch.Tensor]:
    tokens, heads, _ = query.shape
    return query.new_empty(query.shape), query.new_empty((heads, tokens), dtype=torch.float32)


@torch.library.custom_op("cinetune::shared_prefix_backward", mutates_args=())
def _flash_backward(
    grad: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mixed: torch.Tensor,
    sums: torch.Tensor,
    borders: torch.Tensor,
    prefix: int,
    longest: int,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of query, key and value, of a pack that was read whole.

    Each product's own backward pass, given what all of them mixed and the sums over all of them, yields its share.
    """
    run = _kernels(query, key).backward
    query_grad, key_grad, value_grad = run(
        grad, query, key, value, mixed, sums, borders, max(prefix, longest), scale
    )  # fmt: skip
    behind = key.shape[0] - prefix
    if behind:
        shares = run(
            grad[-behind:], query[-behind:], key[:prefix], value[:prefix], mixed[-behind:],
            sums[:, -behind:].contiguous(), None, prefix, scale,
        )  # fmt: skip
        query_grad[-behind:] += shares[0]
        key_grad[:prefix] += shares[1]
        value_grad[:prefix] += shares[2]
    return query_grad, key_grad, value_grad


@_flash_backward.register_fake
def _flash_backward_shapes(
    grad: torch.Tensor, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *rest: Any
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
    query, key, value, borders, *ctx.numbers = inputs
    ctx.save_for_backward(query, key, value, *output, borders)


def _give_back(ctx: Any, grad: torch.Tensor, _: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    grads = _flash_backward(grad.contiguous(), *ctx.saved_tensors, *ctx.numbers)
    return *grads, None, None, None, None


_flash.register_autograd(_give_back, setup_context=_keep)

AttentionInterface.register(SHARED_PREFIX, shared_prefix_attention)
AttentionMaskInterface.register(SHARED_PREFIX, sdpa_mask)
