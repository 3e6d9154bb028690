"""The loss of a pack, and the accuracy of its most probable letters."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from cinetune.errors import InputError
from cinetune.inference.scoring import QuestionPrompt, choose
from cinetune.model.base import answer_logits
from cinetune.runtime import distributed
from cinetune.task.description import LETTERS
from cinetune.task.questions import ClipQuestions, Question
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
    shorts, found = packs.encoder.task.shorts, list[tuple[str, bool]]()
    mine = _with_options(packs)[distributed.rank() :: distributed.count()]
    clips = (
        (
            clip.subtitles,
            packs.frames_of(clip.clip_id),
            [QuestionPrompt(question.text, question.options) for question in asked],
        )
        for clip, asked in mine
    )
    for (_, questions), replies in zip(mine, choose(model, packs.encoder, clips), strict=True):
        for question, answer in zip(questions, replies, strict=True):
            found.append((shorts.get(question.category, ""), answer.letter == LETTERS[question.answer]))
    model.train(was_training)
    right: dict[str, list[bool]] = {"accuracy": []}
    for category, is_right in distributed.gather(found):
        right["accuracy"].append(is_right)
        if category:
            right.setdefault(f"accuracy/{category}", []).append(is_right)
    return {name: float(np.mean(hits)) for name, hits in right.items()}


def _with_options(packs: Packs) -> list[tuple[ClipQuestions, list[Question]]]:
    """The packs' clips with those of their questions that have options. Raises InputError where there are none."""
    chosen = [(clip, [question for question in asked if not question.is_open]) for clip, asked in packs.items]
    found = [(clip, asked) for clip, asked in chosen if asked]
    if not found:
        raise InputError("no question of the validation clips has options: an adapter is chosen by accuracy on those.")
    return found
