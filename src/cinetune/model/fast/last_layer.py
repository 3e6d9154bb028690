"""The last decoder layer of a pack, only where answers are.

No later layer looks at what it makes of the other tokens: of those it needs keys and values alone. What is left out are
their queries, their attention and their MLP, five sixths of the layer; the numbers are the same.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaDecoderLayer, rotate_half

from cinetune.model.attention import Layout


class AnswerLayer(LlamaDecoderLayer):
    """A layer that is told where the answers' slots are, `answers` [S], and is zero in all other places."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        *args: Any,
        answers: torch.Tensor | None = None,
        questions: Layout | None = None,
        position_embeddings: tuple[torch.Tensor, torch.Tensor] | None = None,
        **options: Any,
    ) -> torch.Tensor:
        if answers is None or questions is None or position_embeddings is None:
            options |= {"questions": questions, "position_embeddings": position_embeddings}
            return super().forward(hidden_states, *args, **options)
        return _at_answers(self, hidden_states, answers, questions, position_embeddings)


def narrow(model: Any) -> None:
    """Let a base's last layer be told of answers, where it is the one whose steps are known here."""
    layer = model.model.language_model.layers[-1]
    attention = layer.self_attn
    if type(layer) is LlamaDecoderLayer and type(attention) is LlamaAttention and not attention.attention_dropout:
        layer.__class__ = AnswerLayer


# Little is left of the layer, too little to be compiled once more.
@torch.compiler.disable
def _at_answers(
    layer: AnswerLayer,
    hidden_states: torch.Tensor,
    answers: torch.Tensor,
    questions: Layout,
    position_embeddings: tuple[torch.Tensor, torch.Tensor],
) -> torch.Tensor:
    attention = layer.self_attn
    cos, sin = (part[:, None] for part in position_embeddings)

    def heads(projected: torch.Tensor) -> torch.Tensor:
        return projected.unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)

    normed = layer.input_layernorm(hidden_states)
    query = heads(attention.q_proj(normed.index_select(1, answers)))
    key, value = heads(attention.k_proj(normed)), heads(attention.v_proj(normed))
    query = query * cos.index_select(2, answers) + rotate_half(query) * sin.index_select(2, answers)
    key = key * cos + rotate_half(key) * sin
    mixed = scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=_visible(answers, questions, key.shape[2]),
        scale=attention.scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    chosen = hidden_states.index_select(1, answers) + attention.o_proj(mixed.transpose(1, 2).flatten(2))
    chosen = chosen + layer.mlp(layer.post_attention_layernorm(chosen))
    return torch.zeros_like(hidden_states).index_copy(1, answers, chosen.to(hidden_states.dtype))


def _visible(answers: torch.Tensor, questions: Layout, tokens: int) -> torch.Tensor:
    """What each answer's slot may see: the prefix, and of its own question what is not behind it; [S, tokens]."""
    _, places, borders = questions
    begins = borders[torch.searchsorted(borders, answers.to(borders.dtype), right=True) - 1]
    at = torch.arange(tokens, device=answers.device)
    return (at <= answers[:, None]) & ((at < tokens - places.shape[0]) | (at >= begins[:, None]))
