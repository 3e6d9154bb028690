"""Trainings of seconds: a random base, clips whose questions their subtitles answer, and settings that learn them."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from builders.projects import ROOT
from builders.tokenizers import tokenizer_of
from cinetune import params as params_module
from cinetune.data.mini import story
from cinetune.model.encoder import Encoder, encoder_for
from cinetune.model.lora import save_adapter
from cinetune.params import TrainParams
from cinetune.pretraining import architecture
from cinetune.runtime import checkpoints, distributed
from cinetune.task.questions import ClipQuestions, Question
from cinetune.training import trainer
from cinetune.training.callbacks import Reporter
from cinetune.training.trainer import TrainingResult

PARAMS = params_module.load(ROOT / "params.yaml")
SIZE, NUM_FRAMES = 32, 2
SMALL = dataclasses.replace(
    PARAMS.pretrain,
    hidden_size=64,
    intermediate_size=128,
    layers=2,
    heads=2,
    vision_hidden_size=32,
    vision_layers=1,
    patch_size=16,
)
TRAIN = dataclasses.replace(
    PARAMS.train,
    epochs=2.0,
    learning_rate=1e-2,
    warmup_fraction=0.0,
    clips_per_step=2,
    questions_per_pack=3,
    shuffle_choices=False,
    open_questions_per_pack=0,
    validations_per_epoch=1,
    lora_rank=4,
    lora_alpha=8,
    lora_dropout=0.0,
    seed=7,
)
THINGS = ("key", "rope", "lamp", "map", "ring")
CATEGORIES = ("Temporal", "Theme Exploration")
MADE_BY = {"train.seed": "7", "the frames": "abc", "code": "1"}
# Dropout draws from the random numbers at every step, so a state that is not restored shows.
STEPS = {"epochs": 2.0, "lora_dropout": 0.2, "clips_per_step": 2, "validations_per_epoch": 2}


def fresh_base(tokenizer: Any) -> Any:
    """A frozen base, always with the same random weights; LoRA changes the modules that it is attached to."""
    torch.manual_seed(0)
    return architecture.make_model(SMALL, SIZE, tokenizer).requires_grad_(False).eval()


def frames_of(clip_id: str) -> np.ndarray:
    rng = np.random.default_rng(list(clip_id.encode()))
    return rng.integers(0, 256, (NUM_FRAMES, SIZE, SIZE, 3), dtype=np.uint8)


def clip(name: str, num_questions: int) -> ClipQuestions:
    """A clip whose questions the subtitles answer: who has which thing?"""
    rng = np.random.default_rng(list(name.encode()))
    answers = rng.integers(0, 5, num_questions)
    people = story.FILM.names[:num_questions]
    asked, said = [], []
    for number, (person, answer) in enumerate(zip(people, answers, strict=True)):
        order = rng.permutation(THINGS)
        said.append(f"<subtitle> {person} needs the {order[answer]}.")
        choices = tuple(f"the {thing}" for thing in order)
        category = CATEGORIES[number % 2]
        question_id = f"{name}-{number}"
        asked.append(Question(question_id, f"What does {person} need?", choices, int(answer), category, "False", "0"))
    return ClipQuestions(name, f"Film of {name}", "\n".join(said), tuple(asked))


def clips(*numbers_of_questions: int, of: str = "train") -> list[ClipQuestions]:
    return [clip(f"{of}{number}", count) for number, count in enumerate(numbers_of_questions)]


def run(
    model: Any,
    encoder: Encoder,
    work: Path,
    train_clips: Sequence[ClipQuestions],
    validation_clips: Sequence[ClipQuestions] | None = None,
    report: Callable[[int, Mapping[str, float]], None] = lambda step, figures: None,
    checkpoint: Path | None = None,
    **changes: Any,
) -> TrainingResult:
    held_out = clips(3, of="validation") if validation_clips is None else validation_clips
    params: TrainParams = dataclasses.replace(TRAIN, **changes)
    return trainer.train(model, encoder, train_clips, held_out, frames_of, params, work, report, checkpoint)


class StoppedError(Exception):
    """Raised in the middle of a training."""


def train_with_checkpoints(
    work: Path,
    stop_at: int | None = None,
    signalled: int = 0,
    numbers_of_questions: Sequence[int] = (3,) * 9,
    **changes: Any,
) -> trainer.TrainingResult:
    """Ten optimiser steps with nine packs an epoch, one of them alone in a step; each second step is saved.

    It breaks off where step `stop_at` is reported, and gets the signal `signalled` where the fourth is. Several
    processes may call it together.
    """
    tokenizer = tokenizer_of()
    model = fresh_base(tokenizer)
    encoder = encoder_for(model.config, tokenizer, NUM_FRAMES, 512)

    def report(step: int, figures: Mapping[str, float]) -> None:
        if stop_at is not None and step >= stop_at:
            raise StoppedError
        if signalled and step == 4:
            os.kill(os.getpid(), signalled)

    if distributed.is_first():
        checkpoints.begin(work, "run", MADE_BY)
    begun, given = distributed.share(checkpoints.last(work)), STEPS | changes
    result = run(model, encoder, work, clips(*numbers_of_questions), report=report, checkpoint=begun, **given)
    if distributed.is_first():
        save_adapter(result.model, work / "adapter")
    return result


def train_in_processes(count: int, work: Path, stop_at: int | None = None, **given: Any) -> None:
    """`train_with_checkpoints` in so many processes on this machine's processors."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        shared = {"WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": probe.getsockname()[1]}
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["builders.trainings", "peft"])
    started = [
        context.Process(target=_join_in, args=({**shared, "RANK": rank, "LOCAL_RANK": rank}, work, stop_at, given))
        for rank in range(count)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join()
    assert [process.exitcode for process in started] == [0] * count


def _join_in(ranks: Mapping[str, Any], work: Path, stop_at: int | None, given: Mapping[str, Any]) -> None:
    os.environ.update({name: str(value) for name, value in ranks.items()})
    torch.set_num_threads(1)
    with distributed.joined(), suppress(StoppedError):
        train_with_checkpoints(work, stop_at, **given)


def capture_gradients(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, torch.Tensor]]:
    """Those of each optimiser step of the training to come."""
    captured: list[dict[str, torch.Tensor]] = []

    class Capturing(Reporter):
        def on_pre_optimizer_step(self, *args: Any, model: Any, **kwargs: Any) -> None:
            captured.append({name: w.grad.clone() for name, w in model.named_parameters() if w.grad is not None})

    monkeypatch.setattr(trainer, "Reporter", Capturing)
    return captured
