"""A clip and its questions as one sequence: the prefix once, then each question behind it.

    prefix: instruction, subtitles, video | question 1, answer | question 2, answer | ...

Every question sees the prefix and itself, never a sibling, and its positions start again at the prefix's end: the
numbers are those of separate passes (tests/model/test_packing.py holds logits and gradients to 1e-5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from cinetune.model.attention import Layout, question_layout
from cinetune.model.encoder import Encoder
from cinetune.task.description import LETTERS
from cinetune.task.questions import ClipQuestions, Question

PREFIX, PADDING = 0, -1
CLIP_MEAN, CLIP_DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, eq=False)
class Pack:
    """One sequence of T tokens with S supervised slots; int64 arrays.

    segments: 0 for the prefix, k for the k-th question; slots: where a target's logits are (the token before it);
    owners: the question (0-based) of each slot; frames: uint8 [num_frames, size, size, 3] or None for text alone.
    """

    input_ids: np.ndarray
    position_ids: np.ndarray
    segments: np.ndarray
    slots: np.ndarray
    targets: np.ndarray
    owners: np.ndarray
    frames: np.ndarray | None

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def num_questions(self) -> int:
        return int(self.segments.max())

    def layout(self, device: str | torch.device) -> Layout:
        """`attention.question_layout` of the pack's questions."""
        prefix, *lengths = np.bincount(self.segments).tolist()
        positions, places, borders = (placed(part, device) for part in question_layout(lengths, prefix))
        return positions, places, borders


def pack(
    prefix: Sequence[int],
    suffixes: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]] | None,
    frames: np.ndarray | None,
) -> Pack:
    """Token ids of a prefix, its questions and, for training, their answers (with end token) as a Pack.

    Without answers there is one slot a question: its last token, whose logits predict the answer's first.
    """
    ids, positions, segments = list(prefix), list(range(len(prefix))), [PREFIX] * len(prefix)
    slots: list[int] = []
    targets: list[int] = []
    owners: list[int] = []
    for number, suffix in enumerate(suffixes):
        answer = list(answers[number]) if answers is not None else []
        start = len(ids)
        # The last answer token is only ever a target, so it need not be read.
        body = [*suffix, *answer[:-1]]
        ids += body
        positions += range(len(prefix), len(prefix) + len(body))
        segments += [number + 1] * len(body)
        first = start + len(suffix) - 1
        own = range(first, first + max(1, len(answer)))
        slots += own
        targets += answer
        owners += [number] * len(own)
    columns = {
        "input_ids": ids,
        "position_ids": positions,
        "segments": segments,
        "slots": slots,
        "targets": targets,
        "owners": owners,
    }
    return Pack(**{name: np.array(column, dtype=np.int64) for name, column in columns.items()}, frames=frames)


def tree_mask(segments: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Additive mask [B, 1, T, T] for segments [B, T]: 0 where query i may see key j, else the lowest number."""
    size = segments.shape[1]
    earlier = torch.ones(size, size, dtype=torch.bool, device=segments.device).tril()
    query, key = segments[:, :, None], segments[:, None, :]
    allowed = earlier & ((key == PREFIX) | (key == query))
    return additive_mask(allowed, dtype)[:, None]


def additive_mask(allowed: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """0 where `allowed`, else the lowest number; masks of another kind give other numbers in some attentions."""
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill_(~allowed, torch.finfo(dtype).min)


def stack(packs: Sequence[Pack], pad_token_id: int, multiple_of: int = 1) -> dict[str, torch.Tensor]:
    """Packs as padded rows [B, T], and `slots` as flat indices into their B x T positions with their `targets` [S]."""
    length = -(-max(len(item) for item in packs) // multiple_of) * multiple_of

    def padded(name: str, value: int) -> torch.Tensor:
        rows: np.ndarray = np.full((len(packs), length), value, dtype=np.int64)
        for row, item in zip(rows, packs, strict=True):
            row[: len(item)] = getattr(item, name)
        return torch.from_numpy(rows)

    return {
        "input_ids": padded("input_ids", pad_token_id),
        "position_ids": padded("position_ids", 0),
        "segments": padded("segments", PADDING),
        "slots": torch.from_numpy(np.concatenate([item.slots + row * length for row, item in enumerate(packs)])),
        "targets": torch.from_numpy(np.concatenate([item.targets for item in packs])),
    }


def model_inputs(
    rows: dict[str, torch.Tensor], dtype: torch.dtype, device: str | torch.device
) -> dict[str, torch.Tensor]:
    """`stack`'s rows on a device, with the mask in place of the segments: it is far larger, so it is made there."""
    inputs = {name: placed(values, device) for name, values in rows.items()}
    inputs["attention_mask"] = tree_mask(inputs.pop("segments"), dtype)
    return inputs


def collate(packs: Sequence[Pack], pad_token_id: int, dtype: torch.dtype, device: str | torch.device) -> dict[str, Any]:
    """Packs as one padded batch of the model's inputs, their frames included; one pack's has a layout for a mask."""
    rows = stack(packs, pad_token_id)
    if len(packs) == 1:
        del rows["segments"]
        batch: dict[str, Any] = {name: placed(values, device) for name, values in rows.items()}
        batch |= {"questions": packs[0].layout(device), "attention_mask": no_mask(device)}
    else:
        batch = model_inputs(rows, dtype, device)
    if packs[0].frames is not None:
        frames = torch.from_numpy(np.stack([item.frames for item in packs]))
        batch["pixel_values_videos"] = normalise(placed(frames, device)).to(dtype)
    return batch


def placed(values: torch.Tensor, device: str | torch.device) -> torch.Tensor:
    """On a device; through pinned memory, so that a GPU that is still at work is not waited for."""
    return (values.pin_memory() if torch.device(device).type == "cuda" else values).to(device, non_blocking=True)


def normalise(frames: torch.Tensor) -> torch.Tensor:
    """uint8 [..., height, width, 3] -> float32 [..., 3, height, width] with CLIP's mean and deviation."""
    mean, deviation = (placed(torch.tensor(values), frames.device) for values in (CLIP_MEAN, CLIP_DEVIATION))
    return ((frames.float() / 255 - mean) / deviation).movedim(-1, -3).contiguous()


def no_mask(device: str | torch.device) -> torch.Tensor:
    """Goes with a layout: with none at all a mask would be made, and an attention that used this one would fail."""
    return torch.zeros(1, 1, 0, 0, device=device)


def training_pack(
    encoder: Encoder,
    clip: ClipQuestions,
    questions: Sequence[Question],
    frames: np.ndarray,
    in_words: Sequence[Question] = (),
) -> Pack:
    """A clip with some of its questions and their letters as answers; those `in_words` are asked without options.

    An open question, which has none, is answered in words.
    """
    asked = [(question.text, question.options) for question in questions] + [(item.text, None) for item in in_words]
    answers = [question.words if question.is_open else LETTERS[question.answer] for question in questions]
    answers += [question.answer_text for question in in_words]
    return pack(encoder.prefix(clip.subtitles)[0], encoder.suffixes(asked), encoder.answers(answers), frames)


def weights(packs: Sequence[Pack]) -> torch.Tensor:
    """Weight of each slot, so that every question counts once whatever the length of its answer."""
    parts = [1.0 / np.bincount(item.owners)[item.owners] for item in packs]
    return torch.from_numpy(np.concatenate(parts).astype(np.float32))


def pieces(questions: Sequence[Question], size: int) -> list[Sequence[Question]]:
    """A clip's questions in runs of at most `size`, of lengths as equal as can be."""
    count = -(-len(questions) // size)
    borders = [round(i * len(questions) / count) for i in range(count + 1)]
    return [questions[start:end] for start, end in pairwise(borders)]
