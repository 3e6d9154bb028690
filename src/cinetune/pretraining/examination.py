"""What the tiny base can do on films that it has not seen."""

from __future__ import annotations

import numpy as np
import torch
from transformers import (
    VideoLlavaForConditionalGeneration,
)

from cinetune.data.mini import ask, talk
from cinetune.model.base import answer_logits
from cinetune.model.encoder import Encoder
from cinetune.model.packing import Pack, collate, normalise, pack
from cinetune.params import PretrainParams
from cinetune.pretraining import lessons
from cinetune.pretraining.dataset import clip_of, clip_prefix, encode

HELD_OUT_CLIPS = 60


@torch.no_grad()
def examine(
    model: VideoLlavaForConditionalGeneration,
    encoder: Encoder,
    params: PretrainParams,
    frames: torch.Tensor,
    first: int,
) -> dict[str, float]:
    """Share of held-out questions answered right, by format and kind, and in CinePile's format without any training.

    An answer is right when every token of it, the end included, is the most probable one.
    """
    model.eval()
    hits: dict[str, list[bool]] = {}
    letters = torch.tensor(encoder.letters(), device=frames.device)
    for row in range(len(frames)):
        rng = np.random.default_rng((params.seed, 12, row))
        clip = clip_of(params.seed, first + row, params.clips_per_film)
        pixels = normalise(frames[row : row + 1])
        questions = ask.candidates(clip, rng)
        exercises = [lessons.exercise(question, form, rng) for form in lessons.FORMATS for question in questions]
        exercises += [
            lessons.description(clip),
            *(lessons.account(clip, person) for person in clip.talk.introduced),
            lessons.lookup(rng),
            *(lessons.binding(rng) for _ in questions),
        ]
        item = encode(encoder, clip_prefix(encoder, clip, rng), exercises, None)
        right = _eager_logits(model, item, pixels).argmax(-1).cpu().numpy() == item.targets
        for number, done in enumerate(exercises):
            hit = bool(right[item.owners == number].all())
            names = (done.form, f"{done.form}/{done.kind}") if done.form != "binding" else ("binding", done.kind)
            for name in names:
                hits.setdefault(name, []).append(hit)
        gold = rng.integers(0, ask.NUM_CHOICES, len(questions))
        suffixes = [
            encoder.suffix(q.text, q.choices(rng, int(position))) for q, position in zip(questions, gold, strict=True)
        ]
        item = pack(encoder.prefix(talk.subtitles(clip))[0], suffixes, None, None)
        chosen = _eager_logits(model, item, pixels)[:, letters].argmax(-1).cpu().numpy()
        hits.setdefault("cinepile_format", []).extend((chosen == gold).tolist())
    model.train()
    return {f"held_out/{name}": float(np.mean(right)) for name, right in sorted(hits.items())}


def _eager_logits(model: VideoLlavaForConditionalGeneration, item: Pack, pixels: torch.Tensor) -> torch.Tensor:
    # One pack needs no padding. Each has a length of its own: compiling for it would take longer than the training.
    batch = collate([item], 0, torch.float32, pixels.device) | {"pixel_values_videos": pixels}
    with torch.compiler.set_stance("force_eager"):
        return answer_logits(model, batch)
