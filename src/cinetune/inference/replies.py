"""A model's replies to all questions of a split, under any number of ablations; can be stopped and shared out.

Each clip depends on itself alone: whoever evaluates it, in whichever order and after however many stops, the
predictions are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd
import torch

from cinetune.errors import InputError
from cinetune.evaluation import ablations as ablations_module
from cinetune.evaluation import predictions
from cinetune.inference.journal import Journal, SavedReply
from cinetune.inference.scoring import QuestionPrompt, answer, read
from cinetune.model.encoder import Encoder
from cinetune.model.packing import pieces
from cinetune.task.description import CINEPILE, Task
from cinetune.task.questions import ClipQuestions

FramesOf = Callable[[str], np.ndarray]


@dataclass(frozen=True)
class Share:
    """Which of several processes this is; `rank` counts from 0."""

    rank: int = 0
    of: int = 1


def reply_to_clip(
    model: torch.nn.Module,
    encoder: Encoder,
    clip: ClipQuestions,
    frames: np.ndarray,
    ablations: Sequence[str],
    questions_per_pack: int,
    max_new_tokens: int,
) -> dict[str, list[SavedReply]]:
    """Replies to a clip's questions in their order, by ablation; the clip is read once for each way of showing it."""
    replies: dict[str, list[SavedReply]] = {}
    for view in dict.fromkeys(ablations_module.view_of(name) for name in ablations):
        reading = read(model, encoder, *ablations_module.show(view, clip.clip_id, clip.subtitles, frames))
        for name in ablations:
            if ablations_module.view_of(name) != view:
                continue
            places = ablations_module.rotation_of(name)
            replies[name] = [
                (item.raw, item.probabilities, item.letter_mass)
                for questions in pieces(clip.questions, questions_per_pack)
                for item in answer(
                    model,
                    encoder,
                    reading,
                    [QuestionPrompt(q.text, ablations_module.rotate(q.choices, places) or None) for q in questions],
                    max_new_tokens,
                )
            ]
    return {name: replies[name] for name in ablations}


def reply_to_clips(
    model: torch.nn.Module,
    encoder: Encoder,
    clips: Sequence[ClipQuestions],
    frames_of: FramesOf,
    ablations: Sequence[str],
    journal: Journal,
    share: Share,
    *,
    questions_per_pack: int,
    max_new_tokens: int,
    progress: Callable[[int, int], object] | None = None,
) -> None:
    """Reply to this process's share of the clips, but for those that the journal holds.

    frames_of: a clip id's uint8 [num_frames, size, size, 3]. progress: called with clips done and clips in all.
    """
    mine = clips[share.rank :: share.of]
    done = journal.read()
    for number, clip in enumerate(mine, start=1):
        if clip.clip_id not in done:
            frames = frames_of(clip.clip_id)
            journal.add(
                clip.clip_id,
                reply_to_clip(model, encoder, clip, frames, ablations, questions_per_pack, max_new_tokens),
            )
        if progress is not None:
            progress(number, len(mine))


def collect(
    clips: Sequence[ClipQuestions],
    replies: Mapping[str, Mapping[str, Sequence[SavedReply]]],
    missing: Mapping[str, str],
    ablations: Sequence[str],
    task: Task = CINEPILE,
) -> dict[str, pd.DataFrame]:
    """Predictions by ablation, in the order of the questions; `missing` gives a reason for each clip not asked.

    Raises InputError when a clip that could be asked has no replies to all its questions.
    """
    tables: dict[str, pd.DataFrame] = {}
    for name in ablations:
        rotation = ablations_module.rotation_of(name)
        rows: list[dict[str, Any]] = []
        for clip in clips:
            if clip.clip_id in missing:
                reason = missing[clip.clip_id]
                rows += [predictions.missing_row(clip, question, reason, rotation) for question in clip.questions]
                continue
            found = replies.get(clip.clip_id, {}).get(name, ())
            if len(found) != len(clip.questions):
                raise InputError(
                    f"clip {clip.clip_id!r} has {len(found)} of {len(clip.questions)} replies under {name!r}: a "
                    "process of this evaluation ended early; run it again, and it resumes from there."
                )
            rows += [
                predictions.answered_row(clip, question, raw, shares, rotation, mass)
                for question, (raw, shares, mass) in zip(clip.questions, found, strict=True)
            ]
        tables[name] = predictions.as_table(rows, task)
    return tables


@contextmanager
def together(share: Share) -> Iterator[None]:
    """Ends when every process has reached the end of its block. torchrun ends all of them when one fails."""
    if share.of == 1:
        yield
        return
    # Nothing but this wait goes between the processes, so it needs no GPU.
    torch.distributed.init_process_group("gloo", timeout=timedelta(days=7))
    try:
        yield
        torch.distributed.barrier()
    finally:
        torch.distributed.destroy_process_group()
