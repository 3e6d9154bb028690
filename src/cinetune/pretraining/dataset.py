"""The tiny base model: a Video-LLaVA of under three million parameters that can look, read and bind labels.

It learns on films of its own, made by the renderer of CinePile-mini: to answer in words, to choose among labelled
options and, on text alone, to say which of several labels stands for what. It never meets CinePile's format, as
Video-LLaVA had not: that is left to the fine-tune.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import IterableDataset

from cinetune.data.mini import ask, draw, story, talk
from cinetune.frames.sampling import FrameSettings, choose_times, fit
from cinetune.model.encoder import Encoder
from cinetune.model.packing import Pack, pack, stack
from cinetune.params import PretrainParams
from cinetune.pretraining import lessons
from cinetune.task import prompts

# Lengths in multiples of this: attention uses its fast kernels, and few shapes are compiled.
PADDED_TO = 128
QUESTIONS_WHILE_READING, QUESTIONS_WHILE_LOOKING, QUESTIONS_PER_CLIP = 5, 4, 8
BINDINGS_IN_A_DRILL = 8
DRILLS = (lessons.binding, lessons.lookup, lessons.roll_call)


def clip_of(seed: int, number: int, clips_per_film: int) -> story.Clip:
    """The `number`-th clip of all films that a seed gives."""
    film = story.make_film(seed, number // clips_per_film, lessons.WORLD)
    return story.make_clip(seed, film, number % clips_per_film)


def look(number: int, seed: int, clips_per_film: int, settings: FrameSettings) -> np.ndarray:
    """Frames uint8 [num_frames, size, size, 3] of one clip, straight from the renderer, at the project's times."""
    clip = clip_of(seed, number, clips_per_film)
    times = choose_times(clip.duration_s, clip.cuts, settings)
    shown = [min(int(time * story.FPS), clip.num_frames - 1) for time in times]
    return np.stack([fit(draw.render(clip, frame), settings.size) for frame in shown])


class Exercises(IterableDataset):
    """The training batches of so many steps; each of their packs is a function of the seed and its numbers alone."""

    def __init__(self, params: PretrainParams, encoder: Encoder, steps: int) -> None:
        self.params, self.encoder, self.steps = params, encoder, steps

    def __iter__(self) -> Iterator[tuple[list[int], dict[str, torch.Tensor]]]:
        worker = torch.utils.data.get_worker_info()
        start, stride = (worker.id, worker.num_workers) if worker else (0, 1)
        for number in range(start, self.steps, stride):
            clips, packs = self.batch(number)
            yield clips, stack(packs, self.encoder.tokenizer.pad_token_id, PADDED_TO)

    def batch(self, number: int) -> tuple[list[int], list[Pack]]:
        """Numbers of the clips that are seen (none while only reading is learned) and their packs."""
        params = self.params
        reading, apart = params.drill_steps, params.drill_steps + params.text_steps
        size, seen = params.clips_per_step, 0
        if number >= apart:
            seen = size // 2 if number < apart + params.apart_steps else size
        make_seen = self._clip_pack if number >= apart + params.apart_steps else self._look_pack
        make_text = self._drill_pack if number < reading else self._text_pack
        clips, packs = [], []
        for row in range(size):
            rng = np.random.default_rng((params.seed, 11, number, row))
            if row < seen:
                clips.append(int(rng.integers(params.films * params.clips_per_film)))
                packs.append(make_seen(clips[-1], rng))
            else:
                packs.append(make_text(rng))
        return clips, packs

    def _drill_pack(self, rng: np.random.Generator) -> Pack:
        """Lists and what stands where in them."""
        exercises = [lessons.binding(rng) for _ in range(BINDINGS_IN_A_DRILL)] + [drill(rng) for drill in DRILLS]
        return encode(self.encoder, self.encoder.tokenizer("USER: Read this.\n").input_ids, exercises, None)

    def _text_pack(self, rng: np.random.Generator) -> Pack:
        """A clip's talk without its pictures: what was said, and which label stands for what?"""
        clip = clip_of(self.params.seed, int(rng.integers(1 << 20)), self.params.clips_per_film)
        exercises = self._exercises(clip, ask.SUBTITLES, QUESTIONS_WHILE_READING, rng)
        exercises += [lessons.account(clip, person) for person in clip.talk.introduced]
        exercises += [drill(rng) for drill in DRILLS]
        start = self.encoder.tokenizer(f"USER: Read this.\n{prompts.spoken(talk.subtitles(clip))}\n").input_ids
        return encode(self.encoder, start, exercises, None)

    def _look_pack(self, number: int, rng: np.random.Generator) -> Pack:
        """A clip's pictures without its talk."""
        clip = clip_of(self.params.seed, number, self.params.clips_per_film)
        exercises = self._exercises(clip, ask.FRAMES, QUESTIONS_WHILE_LOOKING, rng)
        start = self.encoder.with_video(f"USER: {prompts.VIDEO}\n")
        return encode(self.encoder, start, [lessons.description(clip), *exercises, lessons.binding(rng)], None)

    def _clip_pack(self, number: int, rng: np.random.Generator) -> Pack:
        """A whole clip."""
        clip = clip_of(self.params.seed, number, self.params.clips_per_film)
        exercises = self._exercises(clip, None, QUESTIONS_PER_CLIP, rng)
        person = clip.talk.introduced[rng.integers(len(clip.talk.introduced))]
        drills = [lessons.binding(rng), DRILLS[rng.integers(1, len(DRILLS))](rng)]
        more = [lessons.description(clip), lessons.account(clip, person), *drills]
        return encode(self.encoder, clip_prefix(self.encoder, clip, rng), [*exercises, *more], None)

    def _exercises(
        self, clip: story.Clip, needs: str | None, count: int, rng: np.random.Generator
    ) -> list[lessons.Exercise]:
        questions = [question for question in ask.candidates(clip, rng) if needs in (None, question.needs)]
        chosen = [questions[i] for i in rng.permutation(len(questions))[:count]]
        return [
            lessons.exercise(question, lessons.FORMATS[rng.choice(len(lessons.FORMATS), p=lessons.FORMAT_SHARES)], rng)
            for question in chosen
        ]


def clip_prefix(encoder: Encoder, clip: story.Clip, rng: np.random.Generator) -> list[int]:
    return encoder.with_video(lessons.prefix(prompts.spoken(talk.subtitles(clip)), rng))


def encode(
    encoder: Encoder, prefix_ids: list[int], exercises: Sequence[lessons.Exercise], frames: np.ndarray | None
) -> Pack:
    suffixes = encoder.tokenizer([item.suffix for item in exercises], add_special_tokens=False).input_ids
    return pack(prefix_ids, suffixes, encoder.answers([item.answer for item in exercises]), frames)
