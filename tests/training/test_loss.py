"""The loss is the mean over a step's questions, however they are packed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import set_seed

from builders.trainings import TRAIN, capture_gradients, clips, frames_of, fresh_base, run
from cinetune.model.encoder import Encoder
from cinetune.model.lora import attach_lora
from cinetune.model.packing import normalise
from cinetune.task import prompts
from cinetune.task.questions import ClipQuestions
from cinetune.training.dataset import Packs
from cinetune.training.loss import letter_accuracy

pytestmark = pytest.mark.training


def reference_gradients(
    base: Any, encoder: Encoder, given: Sequence[ClipQuestions], is_in_words: bool = False
) -> dict[str, torch.Tensor]:
    """Of the mean over all questions, each passed alone as ordinary text: nothing of ours but the prompt's words.

    A question's loss is the mean over its answer's tokens and the end token, and over nothing else. The answer is
    a letter; `is_in_words` asks each question once more without options, and then it is the right option's words.
    """
    set_seed(TRAIN.seed)
    model = attach_lora(base, TRAIN)
    tokenizer = encoder.tokenizer
    asked = [
        (item, question, choices)
        for item in given
        for question in item.questions
        for choices in ((question.choices, None) if is_in_words else (question.choices,))
    ]
    for item, question, choices in asked:
        pixels = normalise(torch.from_numpy(frames_of(item.clip_id)))[None]
        head, tail = prompts.prefix(prompts.spoken(item.subtitles)).split("<video>")
        video = [encoder.video_token_id] * encoder.num_video_tokens
        plain = [tokenizer(text, add_special_tokens=False).input_ids for text in (head, tail)]
        ids = [tokenizer.bos_token_id, *plain[0], *video, *plain[1]]
        suffix = prompts.suffix(question.text, choices)
        ids += tokenizer(suffix, add_special_tokens=False).input_ids
        answer = question.choices[question.answer] if choices is None else "ABCDE"[question.answer]
        target = [*tokenizer(f" {answer}", add_special_tokens=False).input_ids, tokenizer.eos_token_id]
        ids += target
        given_ids = torch.tensor([ids])
        logits = model(input_ids=given_ids, pixel_values_videos=pixels).logits[0]
        loss = torch.nn.functional.cross_entropy(logits[-len(target) - 1 : -1], given_ids[0, -len(target) :])
        (loss / len(asked)).backward()
    return {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


def relative_difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    largest = max(gradient.abs().max() for gradient in other.values())
    assert largest > 1e-5
    return float(max((one[name] - other[name]).abs().max() for name in other) / largest)


def test_a_steps_gradient_is_the_mean_over_its_questions_however_they_are_packed(
    base: Any, tokenizer: Any, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packs of 3, 2, 2 and 1 questions: a mean over packs would weigh the last one's question thrice."""
    given = clips(5, 2, 1)
    steps = capture_gradients(monkeypatch)
    run(base, encoder, tmp_path, given, epochs=1.0, clips_per_step=4, max_grad_norm=1e9)
    assert len(steps) == 1
    assert relative_difference(steps[0], reference_gradients(fresh_base(tokenizer), encoder, given)) < 1e-4


def test_questions_asked_in_words_weigh_as_much_as_those_asked_for_a_letter(
    base: Any, tokenizer: Any, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = clips(3, 2)
    steps = capture_gradients(monkeypatch)
    run(base, encoder, tmp_path, given, epochs=1.0, max_grad_norm=1e9, open_questions_per_pack=3)
    assert len(steps) == 1
    expected = reference_gradients(fresh_base(tokenizer), encoder, given, is_in_words=True)
    assert relative_difference(steps[0], expected) < 1e-4


def test_the_last_step_of_an_epoch_with_fewer_packs_weighs_its_questions_as_the_others(
    base: Any, tokenizer: Any, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = clips(2, 2, 2, 2, 2)
    steps = capture_gradients(monkeypatch)
    run(base, encoder, tmp_path, given, epochs=1.0, clips_per_step=4, max_grad_norm=1e9, learning_rate=1e-12)
    assert len(steps) == 2
    both = {name: (4 * steps[0][name] + steps[1][name]) / 5 for name in steps[0]}
    assert relative_difference(both, reference_gradients(fresh_base(tokenizer), encoder, given)) < 1e-4


def test_accuracy_is_that_of_the_most_probable_letter(base: Any, encoder: Encoder) -> None:
    """By category too, and the same however the questions are packed."""
    given = clips(5, 4, of="validation")
    figures = [letter_accuracy(base, Packs(given, encoder, frames_of, size)) for size in (1, 5)]
    assert figures[0] == figures[1]
    packs = Packs(given, encoder, frames_of, 1)
    letters = encoder.letters()
    right: dict[str, list[bool]] = {"Temporal": [], "Theme Exploration": []}
    for index, (_, (question,)) in enumerate(packs.items):
        item = packs[index]
        ids = torch.from_numpy(item.input_ids[: item.slots[0] + 1])[None]
        with torch.no_grad():
            pixels = normalise(torch.from_numpy(item.frames))[None]
            last = base(input_ids=ids, pixel_values_videos=pixels).logits[0, -1]
        right[question.category].append(int(last[letters].argmax()) == question.answer)
    assert figures[0]["accuracy"] == pytest.approx(np.mean([*right["Temporal"], *right["Theme Exploration"]]))
    assert figures[0]["accuracy/temp"] == pytest.approx(np.mean(right["Temporal"]))
    assert figures[0]["accuracy/th"] == pytest.approx(np.mean(right["Theme Exploration"]))


def test_measuring_accuracy_leaves_the_model_in_its_mode(base: Any, encoder: Encoder) -> None:
    packs = Packs(clips(1), encoder, frames_of, 1)
    for mode in (True, False):
        letter_accuracy(base.train(mode), packs)
        assert base.training is mode
