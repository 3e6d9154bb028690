"""The loss of a pack, and the accuracy of its most probable letters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cinetune.inference.scoring import QuestionPrompt, choose
from cinetune.model.base import answer_logits
from cinetune.runtime import distributed
from cinetune.task.questions import CATEGORIES, LETTERS

if TYPE_CHECKING:
    pass
from cinetune.training.dataset import Packs


def loss_of(model: torch.nn.Module, batch: dict[str, Any]) -> torch.Tensor:
    """Cross-entropy of each answer, weighted to count once, summed over a pack's questions."""
    logits = answer_logits(model, batch).float()
    losses = torch.nn.functional.cross_entropy(logits, batch["targets"], reduction="none")
    return (losses * batch["weights"]).sum()


def letter_accuracy(model: torch.nn.Module, packs: Packs) -> dict[str, float]:
    """Share of questions whose most probable option letter is right: `accuracy` and `accuracy/<category>`."""
    was_training = model.training
    model.eval()
    found: list[tuple[str, bool]] = []
    mine = packs.items[distributed.rank() :: distributed.count()]
    clips = (
        (
            clip.subtitles,
            packs.frames_of(clip.clip_id),
            [QuestionPrompt(question.text, question.choices) for question in asked],
        )
        for clip, asked in mine
    )
    for (_, questions), replies in zip(mine, choose(model, packs.encoder, clips), strict=True):
        for question, answer in zip(questions, replies, strict=True):
            found.append((CATEGORIES[question.category], answer.letter == LETTERS[question.answer]))
    model.train(was_training)
    right: dict[str, list[bool]] = {"accuracy": []}
    for category, is_right in distributed.gather(found):
        right["accuracy"].append(is_right)
        right.setdefault(f"accuracy/{category}", []).append(is_right)
    return {name: float(np.mean(hits)) for name, hits in right.items()}
