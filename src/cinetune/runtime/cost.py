"""What a training would take: tokens, steps, memory and hours, from the questions and the base's shape alone.

The rules were checked on one H100 with the 7B's shape (tests/model/test_planning.py has the measurements): memory came
within 10 %, and training ran at 0.37 to 0.62 of the speed of matrix products in bfloat16, faster in float8.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from transformers import VideoLlavaConfig

from cinetune.evaluation.published import version_of
from cinetune.model import planning
from cinetune.model.base import DTYPES, check_frame_size, default_device
from cinetune.model.encoder import Encoder, encoder_of
from cinetune.model.lookup import check_base
from cinetune.model.planning import Plan, PlannedPack, Schedule, schedule
from cinetune.model.shape import read_shape
from cinetune.model.sizes import Size, kept_bytes, size_of
from cinetune.params import DataParams, ModelParams, Params
from cinetune.runtime.limit import matrix_flops
from cinetune.runtime.sharing import check_shares, share_of_linear
from cinetune.task import data_card, description, groups, questions
from cinetune.task.description import CINEPILE, Published, Task
from cinetune.task.questions import ClipQuestions, Question

# Above so many clips the tokens of a part of them are counted, and of the longest in any case.
COUNTED_CLIPS, LONGEST_CLIPS = 512, 32
CHARACTERS_A_TOKEN = 3.5
# How many the 7B knows.
MAX_POSITIONS = 4096
# Lengths in characters that make 620 tokens of instruction and subtitles and 160 tokens a question: those of the
# speeds that were measured.
SUBTITLE_CHARACTERS, QUESTION_CHARACTERS, CHOICE_CHARACTERS = 1_900, 80, 80
# NF4 with double quantisation: 4 bits, and the scales of its blocks. Float8 is kept in two orders.
BYTES_A_QUANTISED_WEIGHT = {"nf4": 0.516, "fp8": 2.0}
# A LoRA weight in float32 with its gradient and Adam's two moments.
BYTES_A_TRAINED_WEIGHT = 16
SHARE_OF_MATRIX_PRODUCTS = 0.4
H100_FLOPS = 775e12


@dataclass(frozen=True)
class Estimate:
    """bytes: on each device, with every activation kept and with activation checkpointing; flops: of all steps.

    share_of_linear: of as many times one process's speed as there are processes, what the packs' lengths allow.
    """

    schedule: Schedule
    bytes_kept: float
    bytes_checkpointed: float
    flops: float
    share_of_linear: float = 1.0


@dataclass(frozen=True)
class TrainingPlan:
    """What is read in an epoch, and how many clips are trained and validated on.

    counted_clips: of the training's, those whose tokens were counted; `plan` is scaled up from them.
    """

    plan: Plan
    training_clips: int
    validation_clips: int
    counted_clips: int


class GuessedTokenizer:
    """Stands in for a tokenizer that is not on this machine: text of n characters has n / 3.5 tokens."""

    eos_token_id, video_token_id = 2, 3

    def __call__(self, text: str | Sequence[str], add_special_tokens: bool = True) -> Any:
        if not isinstance(text, str):
            return SimpleNamespace(input_ids=[self._ids(item, add_special_tokens) for item in text])
        return SimpleNamespace(input_ids=self._ids(text, add_special_tokens))

    def _ids(self, text: str, has_start: bool) -> list[int]:
        head, video, tail = text.partition("<video>")
        # The line's end behind the video is the prefix's.
        words = [self._words(head), self._words(tail.removeprefix("\n"))]
        return [1] * has_start + words[0] + [self.video_token_id] * bool(video) + words[1]

    def _words(self, text: str) -> list[int]:
        role = "ASSISTANT:"
        if text.startswith(role):
            # What follows the role has tokens of its own, each letter another.
            rest = text.removeprefix(role)
            own = [ord(rest[-1])] if rest else []
            return [5] * 4 + [6] * max(0, round(len(rest) / CHARACTERS_A_TOKEN) - 1) + own
        return [4] * round(len(text) / CHARACTERS_A_TOKEN)

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        return "x" * round(len(ids) * CHARACTERS_A_TOKEN)


def describe(params: Params) -> list[str]:
    """What a training would take, one fact a line; neither weights nor frames are read, and no hub is asked."""
    check_base(params.model.base)
    check_shares(params.train.clips_per_step, params.train.processes)
    config, tokenizer, is_own = base_shape(params.model)
    notes = [] if is_own else [base_note(params.model)]
    if is_own:
        check_frame_size(config, params.frames.size)
    questions_file = Path(params.data.root) / "questions" / "train.parquet"
    task = description.of_folder(params.data.root)
    # Of data that nothing can stand in for the questions must be here.
    if task.published is None or questions_file.is_file() or version_of(data_card.name_of(params.data), task) is None:
        planned = training_plan(params, encoder_of(params, config, tokenizer, task))
        if planned.counted_clips < planned.training_clips:
            notes.append(counted_note(planned))
    else:
        planned = published_plan(params, config, task)
        notes.append(questions_note(params.data, task))
    found = estimate(planned.plan, size_of(config, params.train.lora_rank), params)
    device = default_device()
    speed = matrix_flops(device, params.model.dtype)
    return lines(planned, found, params, device, speed, notes)


def training_plan(params: Params, encoder: Encoder) -> TrainingPlan:
    """Of the questions that are here; above COUNTED_CLIPS clips the tokens of a part of them are counted."""
    train, task = params.train, description.of_folder(params.data.root)
    clips = questions.load(params.data.root, "train")
    given = questions.load_validation(params.data.root)
    training_clips, validation_clips = (
        (clips, given) if given else groups.split_groups(clips, train.validation_fraction, train.seed, task.group)
    )
    longest, rest = _longest_apart(training_clips)
    evenly = rest[:: -(-len(rest) // COUNTED_CLIPS) or 1]
    limits = train.questions_per_pack, train.tokens_per_pack, train.open_questions_per_pack
    plan = planning.plan(evenly, encoder, *limits).scaled(len(rest) / max(1, len(evenly)))
    plan += planning.plan(longest, encoder, *limits)
    return TrainingPlan(plan, len(training_clips), len(validation_clips), len(evenly) + len(longest))


def _longest_apart(clips: Sequence[ClipQuestions]) -> tuple[list[ClipQuestions], list[ClipQuestions]]:
    """A few clips with the longest texts, on which memory depends, and the others; none apart where all are counted."""
    if len(clips) <= COUNTED_CLIPS:
        return [], list(clips)
    by_length = sorted(range(len(clips)), key=lambda number: -_characters(clips[number]))
    longest = set(by_length[:LONGEST_CLIPS])
    rest = [clip for number, clip in enumerate(clips) if number not in longest]
    return [clips[number] for number in sorted(longest)], rest


def _characters(clip: ClipQuestions) -> int:
    return len(clip.subtitles) + sum(len(item.text) + sum(map(len, item.choices)) for item in clip.questions)


def base_shape(params: ModelParams) -> tuple[VideoLlavaConfig, Any, bool]:
    """The base's configuration and tokenizer, and whether they are its own: else the 7B's shape and a guess."""
    try:
        return *read_shape(params, is_local=True), True
    except OSError:
        text = {"model_type": "llama", "max_position_embeddings": MAX_POSITIONS}
        config = VideoLlavaConfig(video_token_index=GuessedTokenizer.video_token_id, text_config=text)
        return config, GuessedTokenizer(), False


def published_plan(params: Params, config: VideoLlavaConfig, task: Task = CINEPILE) -> TrainingPlan:
    """The plan of published data that is not on this machine: one clip of usual length stands for all."""
    assert task.published is not None
    tokenizer, train = GuessedTokenizer(), params.train
    encoder = replace(encoder_of(params, config, tokenizer, task), video_token_id=tokenizer.video_token_id)
    one = planning.plan(
        [_usual_clip(task, task.published)],
        encoder,
        train.questions_per_pack,
        train.tokens_per_pack,
        train.open_questions_per_pack,
    )
    clips = task.published.training_questions // task.published.questions_per_clip
    validation = round(clips * train.validation_fraction)
    training = clips - validation
    dropped, shortened = one.dropped_subtitle_tokens * training, one.shortened_clips * training
    return TrainingPlan(Plan(one.packs * training, dropped, shortened), training, validation, training)


def _usual_clip(task: Task, published: Published) -> ClipQuestions:
    choice = "x" * (CHOICE_CHARACTERS - 1)
    choices = tuple(f"{choice}{letter}" for letter in task.letters)
    questions = tuple(
        Question(str(number), "x" * QUESTION_CHARACTERS, choices, 0) for number in range(published.questions_per_clip)
    )
    return ClipQuestions("clip", task.group, "x" * SUBTITLE_CHARACTERS, questions)


def estimate(plan: Plan, size: Size, params: Params) -> Estimate:
    """What a training on these packs takes, in steps, FLOPs and bytes."""
    steps = schedule(len(plan.packs), params.train)
    width = torch.empty((), dtype=DTYPES[params.model.dtype]).element_size()
    quantised = BYTES_A_QUANTISED_WEIGHT.get(params.model.quantization, width)
    weights = size.quantisable * quantised + size.other * width + size.trained * BYTES_A_TRAINED_WEIGHT
    tokens = plan.longest.tokens
    one_layer = kept_bytes(tokens, size.hidden, size.intermediate, width)
    epochs = steps.steps / steps.steps_per_epoch
    passes = _passes(params.train.activation_checkpointing, size.layers)
    return Estimate(
        schedule=steps,
        bytes_kept=weights + size.layers * one_layer,
        bytes_checkpointed=weights + one_layer + width * tokens * size.layers * size.hidden,
        flops=passes * epochs * flops(plan, size),
        share_of_linear=share_of_linear(
            [pack_flops(pack, size) for pack in plan.packs], params.train.clips_per_step, params.train.processes
        ),
    )


def _passes(wanted: str, count: int) -> float:
    """Forward and backward take the same, for frozen weights have no gradients; recomputing is half of both."""
    if wanted == "all":
        return 1.5
    return 1.0 + (0.5 * int(wanted) / count if wanted.isdigit() else 0.0)


def flops(plan: Plan, size: Size) -> float:
    """Floating-point operations of one epoch, nothing computed again."""
    return sum(pack_flops(pack, size) for pack in plan.packs)


def pack_flops(pack: PlannedPack, size: Size) -> float:
    """Forward and backward: frozen weights take no gradient, so a product costs twice, attention thrice."""
    prefix, rest = pack.prefix_tokens, pack.tokens - pack.prefix_tokens
    pairs = prefix**2 / 2 + rest * prefix + rest**2 / (2 * pack.num_asked)
    return 4.0 * size.quantisable * pack.tokens + 12.0 * size.hidden * size.layers * pairs


def lines(
    planned: TrainingPlan, found: Estimate, params: Params, device: str, machine_flops: float, notes: Sequence[str]
) -> list[str]:
    """The plan as text, one fact a line; `notes` say what stands in for what.

    machine_flops: of one GPU of this machine, or of its processors together.
    """
    plan, steps, processes = planned.plan, found.schedule, params.train.processes
    here = 1 if device == "cpu" else processes
    told_here = "this machine's processors" if device == "cpu" else f"{here} GPUs like this machine's"

    def lasting(flops: float, count: int) -> str:
        together = count * found.share_of_linear if count > 1 else 1
        seconds = found.flops / (SHARE_OF_MATRIX_PRODUCTS * flops * together)
        return f"{seconds / 3600:.3g} hours" if seconds >= 360 else f"{seconds:.2g} seconds"

    sentences = {
        "clips": f"{planned.training_clips} to train on, {planned.validation_clips} to validate on",
        "packs": f"{len(plan.packs)} of up to {plan.longest.tokens} tokens, {plan.questions} questions an epoch",
        "tokens": f"{plan.tokens} an epoch, {plan.tokens / plan.questions:.0f} a question",
        "subtitles": f"{plan.dropped_subtitle_tokens} tokens of {plan.shortened_clips} clips are left out",
        "steps": f"{steps.steps}, {steps.steps_per_epoch} an epoch, a validation every {steps.validation_interval}",
        **({"processes": _processes(plan, found, params)} if processes > 1 else {}),
        "memory": _memory(found, params.train.activation_checkpointing),
        "compute": f"{found.flops:.2g} floating-point operations",
        "time": f"about {lasting(machine_flops, here)} on {told_here}, at "
        f"{SHARE_OF_MATRIX_PRODUCTS} of the {machine_flops / 1e12:.2g} TFLOP/s measured now; "
        f"{lasting(H100_FLOPS, processes)} on {processes} H100",
    }
    facts = [*sentences.items(), *(("note", sentence) for sentence in notes)]
    return [f"{name:<10}{sentence}" for name, sentence in facts]


def _processes(plan: Plan, found: Estimate, params: Params) -> str:
    train = params.train
    if len({pack.tokens for pack in plan.packs}) == 1:
        waiting = "packs are equally long here, so waiting for longer ones is not counted"
    else:
        waiting = f"shared out by length, packs allow {found.share_of_linear:.1%} of linear growth"
    return f"{train.processes}, each with {train.clips_per_step // train.processes} packs a step; {waiting}"


def _memory(found: Estimate, wanted: str) -> str:
    low, high = (f"{amount / 1e9:.2g} GB" for amount in (found.bytes_checkpointed, found.bytes_kept))
    if wanted == "auto":
        return f"about {low} a process if every layer is recomputed in the backward pass, {high} if none is"
    return f"about {low if wanted == 'all' else high} a process, with train.activation_checkpointing={wanted}"


def base_note(params: ModelParams) -> str:
    return (
        f"{params.base} is not on this machine: the 7B's shape, and a token for {CHARACTERS_A_TOKEN} characters, "
        "stand in for it"
    )


def counted_note(planned: TrainingPlan) -> str:
    return (
        f"tokens were counted for {planned.counted_clips} clips evenly taken, the {LONGEST_CLIPS} longest among them, "
        "and scaled up to all; a training counts them all"
    )


def questions_note(params: DataParams, task: Task = CINEPILE) -> str:
    assert task.published is not None
    return (
        f"{params.root!r} holds no questions yet: as many as {task.name} v1 trains on, "
        f"{task.published.questions_per_clip} a clip and of usual length, stand in for them"
    )
