"""Training packs as a dataset."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import numpy as np
from torch.utils.data import Dataset

from cinetune.model import planning
from cinetune.model.encoder import Encoder
from cinetune.model.packing import Pack, training_pack
from cinetune.runtime import distributed
from cinetune.task.questions import ClipQuestions

FramesOf = Callable[[str], np.ndarray]


class Packs(Dataset):
    """Training packs, made when asked for: one clip with up to `questions_per_pack` of its questions.

    Some of them, `in_words` a pack, are asked a second time without options and answered in words: a model that is
    only ever taught letters soon has nothing else to say. A clip is split further where its pack would be longer
    than `tokens_per_pack`.

    With a `shuffle_seed` a question's options come in another order in each epoch, so that no place is learned with
    an answer. The order is decided by the seed, the epoch and the pack.
    """

    def __init__(
        self,
        clips: Sequence[ClipQuestions],
        encoder: Encoder,
        frames_of: FramesOf,
        questions_per_pack: int,
        in_words: int = 0,
        tokens_per_pack: int = sys.maxsize,
        shuffle_seed: int | None = None,
    ) -> None:
        self.encoder, self.frames_of = encoder, frames_of
        self.shuffle_seed, self.epoch = shuffle_seed, 0
        measured = _measure_together(clips, encoder, in_words > 0)
        self.plan = planning.plan(clips, encoder, questions_per_pack, tokens_per_pack, in_words, measured)
        self.items = [(pack.clip, pack.questions) for pack in self.plan.packs]

    def begin_epoch(self, epoch: int) -> None:
        """Not called set_epoch: the loader of a resumed training would set that to its own first, whichever it is."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Pack:
        planned = self.plan.packs[index]
        questions = planned.questions
        if self.shuffle_seed is not None:
            rng = np.random.default_rng((self.shuffle_seed, self.epoch, index))
            questions = [question.reordered(rng.permutation(len(question.choices)).tolist()) for question in questions]
        frames = self.frames_of(planned.clip.clip_id)
        return training_pack(self.encoder, planned.clip, questions, frames, planned.in_words)


def _measure_together(clips: Sequence[ClipQuestions], encoder: Encoder, is_in_words: bool) -> list[planning.ClipTokens]:
    """`planning.measure`, of which each process of a training does its part."""
    rank, count = distributed.rank(), distributed.count()
    parts = distributed.gather([planning.measure(clips[rank::count], encoder, is_in_words)])
    found: dict[int, planning.ClipTokens] = {}
    for own, part in enumerate(parts):
        found |= zip(range(own, len(clips), count), part, strict=True)
    return [found[number] for number in range(len(clips))]
