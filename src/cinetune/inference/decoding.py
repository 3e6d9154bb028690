"""The words of answers, token by token: all questions of a pack take one a step, greedily.

On a GPU a step is launched as one CUDA graph (`inference.graphs`), for otherwise it waits for its host. Elsewhere the
cache grows by what is said, and questions that are at their end leave the step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from transformers import DynamicCache

from cinetune.inference import graphs
from cinetune.model.packing import PREFIX, additive_mask


def continued(
    model: torch.nn.Module,
    end: int,
    cache: DynamicCache,
    segments: torch.Tensor,
    positions: torch.Tensor,
    logits: torch.Tensor,
    limits: Sequence[int],
    is_wanted: Callable[[int], bool],
) -> list[list[int]]:
    """Token ids of each question's answer, without the token `end`.

    segments [T]: owner of each cached token; positions [Q]: of each question's last token; logits
    [Q, vocabulary]; limits [Q]: of tokens.
    """
    answers: list[list[int]] = [[] for _ in limits]
    running, chosen = list(range(len(limits))), logits.argmax(-1).tolist()
    with _stepper(model, cache, segments, positions, max(limits)) as take:
        for step in range(max(limits)):
            said = [pair for pair in zip(running, chosen, strict=True) if pair[1] != end and step < limits[pair[0]]]
            for owner, token in said:
                answers[owner].append(token)
            going_on = [(owner, token) for owner, token in said if step + 1 < limits[owner] and is_wanted(owner)]
            if not going_on:
                break
            running = [owner for owner, _ in going_on]
            chosen = take(going_on)
    return answers


def _stepper(
    model: torch.nn.Module, cache: DynamicCache, segments: torch.Tensor, positions: torch.Tensor, steps: int
) -> AbstractContextManager[graphs.Take]:
    """What takes owners with their last tokens and returns their next."""
    growing = Growing(model, cache, segments, positions)
    if not graphs.suit(segments.device):
        return nullcontext(growing.take)
    return graphs.Stepper(model, cache, segments, positions, steps, otherwise=growing.take)


class Growing:
    """Steps behind a cache that grows by the tokens that they take."""

    def __init__(
        self, model: torch.nn.Module, cache: DynamicCache, segments: torch.Tensor, positions: torch.Tensor
    ) -> None:
        self.model, self.cache, self.segments, self.positions = model, cache, segments, positions
        self.dtype = model.get_input_embeddings().weight.dtype
        self.steps = 0

    def take(self, going_on: Sequence[tuple[int, int]]) -> list[int]:
        owners = torch.tensor([owner for owner, _ in going_on], device=self.segments.device)
        self.segments = torch.cat([self.segments, owners + 1])
        # A question's own tokens all lie before its new one, so ownership alone decides what it sees.
        allowed = (self.segments == PREFIX) | (self.segments == owners[:, None] + 1)
        logits = self.model(
            input_ids=torch.tensor([[token for _, token in going_on]], device=self.segments.device),
            position_ids=(self.positions[owners] + 1 + self.steps)[None],
            attention_mask=additive_mask(allowed, self.dtype)[None, None],
            past_key_values=self.cache,
            use_cache=True,
        ).logits[0]
        self.steps += 1
        chosen: list[int] = logits.argmax(-1).tolist()
        return chosen
