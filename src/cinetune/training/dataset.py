"""Training packs as a dataset."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch.utils.data import Dataset

from cinetune.cinepile.questions import ClipQuestions
from cinetune.model import planning
from cinetune.model.encoder import Encoder
from cinetune.model.packing import Pack, training_pack

if TYPE_CHECKING:
    pass

FramesOf = Callable[[str], np.ndarray]


class Packs(Dataset):
    """Training packs, made when asked for: one clip with up to `questions_per_pack` of its questions.

    Some of them, `in_words` a pack, are asked a second time without options and answered in words: a model that is
    only ever taught letters soon has nothing else to say. A clip is split further where its pack would be longer
    than `tokens_per_pack`.
    """

    def __init__(
        self,
        clips: Sequence[ClipQuestions],
        encoder: Encoder,
        frames_of: FramesOf,
        questions_per_pack: int,
        in_words: int = 0,
        tokens_per_pack: int = sys.maxsize,
    ) -> None:
        self.encoder, self.frames_of = encoder, frames_of
        self.plan = planning.plan(clips, encoder, questions_per_pack, tokens_per_pack, in_words)
        self.items = [(pack.clip, pack.questions) for pack in self.plan.packs]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Pack:
        planned = self.plan.packs[index]
        frames = self.frames_of(planned.clip.clip_id)
        return training_pack(self.encoder, planned.clip, planned.questions, frames, planned.in_words)
