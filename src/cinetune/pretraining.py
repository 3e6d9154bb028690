"""The tiny base model: a Video-LLaVA of under three million parameters that can look, read and bind labels.

It learns on films of its own, made by the renderer of CinePile-mini: to answer in words, to choose among labelled
options and, on text alone, to say which of several labels stands for what. It never meets CinePile's format, as
Video-LLaVA had not: that is left to the fine-tune.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch.utils.data import DataLoader, IterableDataset
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    PreTrainedTokenizerFast,
    VideoLlavaConfig,
    VideoLlavaForConditionalGeneration,
)

from cinetune import prompts
from cinetune.attention import IMPLEMENTATION
from cinetune.frames import FrameSettings, choose_times, fit
from cinetune.mini import ask, draw, lessons, story, talk
from cinetune.model import answer_logits, check_frame_size, encoder_for, load_base
from cinetune.packing import Encoder, Pack, collate, model_inputs, normalise, pack, stack
from cinetune.params import ModelParams, PretrainParams

SPECIAL_TOKENS = ("<pad>", "<s>", "</s>", "<image>", "<video>")
QUESTIONS_WHILE_READING, QUESTIONS_WHILE_LOOKING, QUESTIONS_PER_CLIP = 5, 4, 8
BINDINGS_IN_A_DRILL = 8
DRILLS = (lessons.binding, lessons.lookup, lessons.roll_call)
WARMUP_STEPS = 100
HELD_OUT_CLIPS = 60
REPORT_EVERY, EXAMINE_EVERY = 50, 5000
# Lengths in multiples of this: attention uses its fast kernels, and few shapes are compiled.
PADDED_TO = 128
MAX_POSITIONS = 4096

Report = Callable[[int, dict[str, float]], None]


def make_tokenizer(vocab_size: int, seed: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE learned from the mini world's words: no text is unknown to it."""
    rng = np.random.default_rng(seed)
    corpus = ["\n".join(prompts.template().values())]
    for film_id in range(300):
        clip = story.make_clip(seed, story.make_film(seed, film_id), 0)
        corpus += talk.lines(clip)
        for question in ask.candidates(clip, rng):
            corpus.append(lessons.exercise(question, lessons.FORMATS[rng.integers(len(lessons.FORMATS))], rng).suffix)
            corpus += [f" {question.answer}", lessons.binding(rng).suffix]
        told = [lessons.account(clip, person) for person in clip.talk.introduced]
        corpus += [item.suffix + item.answer for item in (lessons.description(clip), *told, lessons.roll_call(rng))]
    labels = (*lessons.NUMBERS, *lessons.LATER_LETTERS, *lessons.LETTERS)
    corpus += [f"ASSISTANT: {label}" for label in labels] * 200
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    bos = SPECIAL_TOKENS.index("<s>")
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", bos)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=["<image>", "<video>"],
        model_max_length=MAX_POSITIONS,
        clean_up_tokenization_spaces=False,
    )


def make_model(
    params: PretrainParams, image_size: int, tokenizer: PreTrainedTokenizerFast
) -> VideoLlavaForConditionalGeneration:
    """A Video-LLaVA with random weights; torch's seed decides them."""
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=params.hidden_size,
        intermediate_size=params.intermediate_size,
        num_hidden_layers=params.layers,
        num_attention_heads=params.heads,
        num_key_value_heads=params.heads,
        max_position_embeddings=MAX_POSITIONS,
        # The default of 0.02 suits widths in the thousands: at this width, labels were not learned with it at all.
        initializer_range=params.hidden_size**-0.5,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    vision = CLIPVisionConfig(
        hidden_size=params.vision_hidden_size,
        intermediate_size=4 * params.vision_hidden_size,
        num_hidden_layers=params.vision_layers,
        num_attention_heads=params.vision_hidden_size // 32,
        image_size=image_size,
        patch_size=params.patch_size,
    )
    config = VideoLlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        # The large model reads the tower's last layer but one; with so few layers none is given away.
        vision_feature_layer=-1,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = VideoLlavaForConditionalGeneration(config)
    model.set_attn_implementation(IMPLEMENTATION)
    return model


def clip_of(seed: int, number: int, clips_per_film: int) -> story.Clip:
    film = story.make_film(seed, number // clips_per_film)
    return story.make_clip(seed, film, number % clips_per_film)


def look(number: int, seed: int, clips_per_film: int, settings: FrameSettings) -> np.ndarray:
    """Frames uint8 [num_frames, size, size, 3] of one clip, straight from the renderer, at the project's times."""
    clip = clip_of(seed, number, clips_per_film)
    times = choose_times(clip.duration_s, clip.cuts, settings)
    shown = [min(int(time * story.FPS), clip.num_frames - 1) for time in times]
    return np.stack([fit(draw.render(clip, frame), settings.size) for frame in shown])


class Exercises(IterableDataset):
    """The training batches of so many steps, each a function of the seed and its number alone."""

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
        rng = np.random.default_rng((params.seed, 11, number))
        reading, apart = params.drill_steps, params.drill_steps + params.text_steps
        size, seen = params.clips_per_step, 0
        if number >= apart:
            seen = size // 2 if number < apart + params.apart_steps else size
        make_seen = self._clip_pack if number >= apart + params.apart_steps else self._look_pack
        make_text = self._drill_pack if number < reading else self._text_pack
        clips = [int(i) for i in rng.integers(0, params.films * params.clips_per_film, seen)]
        return clips, [make_seen(i, rng) for i in clips] + [make_text(rng) for _ in range(size - seen)]

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
            lessons.exercise(question, lessons.FORMATS[rng.choice(3, p=lessons.FORMAT_SHARES)], rng)
            for question in chosen
        ]


def clip_prefix(encoder: Encoder, clip: story.Clip, rng: np.random.Generator) -> list[int]:
    return encoder.with_video(lessons.prefix(prompts.spoken(talk.subtitles(clip)), rng))


def encode(
    encoder: Encoder, prefix_ids: list[int], exercises: Sequence[lessons.Exercise], frames: np.ndarray | None
) -> Pack:
    suffixes = encoder.tokenizer([item.suffix for item in exercises], add_special_tokens=False).input_ids
    return pack(prefix_ids, suffixes, encoder.answers([item.answer for item in exercises]), frames)


def pretrain(params: PretrainParams, settings: FrameSettings, device: str, report: Report) -> dict[str, float]:
    """Train the base, write it to `params.out` in Hugging Face's layout and return its held-out figures.

    First it learns to find its way in lists, then it reads, then it reads and looks, apart, then it does both at once.
    `params.start` names a base to go on from instead of none. What has been learned is saved every now and then.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    torch.manual_seed(params.seed)
    if params.start:
        start = ModelParams(params.start, revision="", quantization="none", dtype="float32")
        model, tokenizer = load_base(start, device)
        model.requires_grad_(True)
        check_frame_size(model.config, settings.size)
    else:
        tokenizer = make_tokenizer(params.vocab_size, params.seed)
        model = make_model(params, settings.size, tokenizer).to(device)
    encoder = encoder_for(model.config, tokenizer, settings.num_frames, MAX_POSITIONS)
    encoder.letters()
    workers = max(1, (os.cpu_count() or 2) - 1)
    total = params.films * params.clips_per_film
    render = partial(look, seed=params.seed, clips_per_film=params.clips_per_film, settings=settings)
    steps = params.drill_steps + params.text_steps + params.apart_steps + params.steps
    if device == "cuda":
        # Layer by layer, so that one small compilation serves all; CUDA graphs, for so small a model is held up by
        # the launching of its kernels.
        for layer in model.model.language_model.layers:
            layer.compile(dynamic=False, mode="reduce-overhead")
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=params.learning_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: learning_rate_factor(step, steps, params.decay_fraction)
    )
    loader = DataLoader(
        Exercises(params, encoder, steps),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=8,
        multiprocessing_context="fork",
    )
    model.train()
    frames: torch.Tensor | None = None
    # Workers are forked, for one that had to import everything would cost ten seconds; none touches the GPU. Those
    # of the loader come first, while this process has no threads yet.
    batches = iter(loader)
    with get_context("fork").Pool(workers) as pool:
        # The films are drawn while the model learns to read.
        drawn = pool.map_async(render, range(total + HELD_OUT_CLIPS), chunksize=64)
        for step, (clips, rows) in enumerate(batches):
            batch = model_inputs(rows, torch.bfloat16 if device == "cuda" else torch.float32, device)
            if clips:
                if frames is None:
                    frames = torch.from_numpy(np.stack(drawn.get())).to(device)
                batch["pixel_values_videos"] = normalise(frames[torch.tensor(clips, device=device)])
            with torch.autocast("cuda", torch.bfloat16, enabled=device == "cuda"):
                logits = answer_logits(model, batch)
            # Every token counts the same, so that descriptions, where there is most to learn, have their full say.
            loss = torch.nn.functional.cross_entropy(logits.float(), batch["targets"])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            optimiser.zero_grad(set_to_none=True)
            if step % REPORT_EVERY == 0 or step == steps - 1:
                report(step, {"loss": loss.item(), "learning_rate": schedule.get_last_lr()[0]})
            if step and step % EXAMINE_EVERY == 0:
                save(model, tokenizer, params.out)
                if frames is not None:
                    report(step, examine(model, encoder, params, frames[total:], total))
        unseen = torch.from_numpy(np.stack(drawn.get()[total:])).to(device)
    figures = examine(model, encoder, params, unseen, total)
    report(steps, figures)
    save(model, tokenizer, params.out)
    described = json.dumps(card(figures), indent=2) + "\n"
    (Path(params.out) / "pretraining.json").write_text(described, encoding="utf-8")
    return figures


def learning_rate_factor(step: int, steps: int, decay_fraction: float) -> float:
    """Warm-up, then full rate, then a straight fall to zero: skills appear late and suddenly, under the full rate."""
    decay_steps = max(1.0, decay_fraction * steps)
    return min((step + 1) / WARMUP_STEPS, 1.0, (steps - step) / decay_steps)


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


def save(model: VideoLlavaForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, out: str) -> None:
    """The base as a folder; the image tower, which video never uses, gets the video tower's weights."""
    model.model.image_tower.load_state_dict(model.model.video_tower.state_dict())
    # A copy, for the training goes on; the head stays one tensor with the embedding.
    copy = VideoLlavaForConditionalGeneration(deepcopy(model.config))
    copy.load_state_dict(model.state_dict())
    copy.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)


def card(figures: dict[str, float]) -> dict[str, float]:
    """What the base can do on films that it has not seen, as shares of questions: the figures that people ask for."""
    names = {
        "open_accuracy": "open",
        "own_format_accuracy": "words_and_label",
        "own_label_only_accuracy": "label",
        "letter_binding_accuracy": "binding_A",
        "cinepile_format_accuracy": "cinepile_format",
    }
    return {name: round(figures[f"held_out/{figure}"], 4) for name, figure in names.items()}
