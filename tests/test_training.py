"""Training: the loss that is meant, the same numbers from the same seed, the best checkpoint, and it learns."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import set_seed

from cinetune import checkpoints, pretraining, prompts, training
from cinetune import params as params_module
from cinetune.errors import InputError
from cinetune.model import attach_lora, encoder_for, save_adapter
from cinetune.packing import Encoder, normalise
from cinetune.params import TrainParams
from cinetune.questions import ClipQuestions, Question
from cinetune.training import Meter, Packs, TrainingResult, letter_accuracy

pytestmark = pytest.mark.training

PARAMS = params_module.load(Path(__file__).resolve().parents[1] / "params.yaml")
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
    open_questions_per_pack=0,
    validations_per_epoch=1,
    lora_rank=4,
    lora_alpha=8,
    lora_dropout=0.0,
    seed=7,
)
THINGS = ("key", "rope", "lamp", "map", "ring")
CATEGORIES = ("Temporal", "Theme Exploration")


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return pretraining.make_tokenizer(1024, seed=3)


def fresh_base(tokenizer: Any) -> Any:
    """A frozen base, always with the same random weights; LoRA changes the modules that it is attached to."""
    torch.manual_seed(0)
    return pretraining.make_model(SMALL, SIZE, tokenizer).requires_grad_(False).eval()


@pytest.fixture
def base(tokenizer: Any) -> Any:
    return fresh_base(tokenizer)


@pytest.fixture
def encoder(base: Any, tokenizer: Any) -> Encoder:
    return encoder_for(base.config, tokenizer, NUM_FRAMES, 512)


def frames_of(clip_id: str) -> np.ndarray:
    rng = np.random.default_rng(list(clip_id.encode()))
    return rng.integers(0, 256, (NUM_FRAMES, SIZE, SIZE, 3), dtype=np.uint8)


def clip(name: str, num_questions: int) -> ClipQuestions:
    """A clip whose questions the subtitles answer: who has which thing?"""
    rng = np.random.default_rng(list(name.encode()))
    answers = rng.integers(0, 5, num_questions)
    people = pretraining.story.NAMES[:num_questions]
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
    return training.train(model, encoder, train_clips, held_out, frames_of, params, work, report, checkpoint)


def adapter_weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in model.named_parameters() if "lora_" in name}


# ---- the loss


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


def capture_gradients(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, torch.Tensor]]:
    """Those of each optimiser step of the training to come."""
    captured: list[dict[str, torch.Tensor]] = []

    class Capturing(training.Reporter):
        def on_pre_optimizer_step(self, *args: Any, model: Any, **kwargs: Any) -> None:
            captured.append({name: w.grad.clone() for name, w in model.named_parameters() if w.grad is not None})

    monkeypatch.setattr(training, "Reporter", Capturing)
    return captured


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


def test_only_lora_is_given_gradients(
    base: Any, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = capture_gradients(monkeypatch)
    run(base, encoder, tmp_path, clips(2, 2), epochs=1.0)
    assert steps[0] and all(".language_model.layers." in name and ".lora_" in name for name in steps[0])


def test_the_bases_own_weights_are_untouched(base: Any, encoder: Encoder, tmp_path: Path) -> None:
    own = [(weight, weight.detach().clone()) for weight in base.parameters()]
    result = run(base, encoder, tmp_path, clips(3, 3))
    assert all(torch.equal(weight, before) for weight, before in own)
    assert any(w.abs().max() > 0 for name, w in adapter_weights(result.model).items() if "lora_B" in name)


# ---- repeatable


def test_a_seed_gives_the_same_adapter_bit_by_bit_and_another_seed_another(tokenizer: Any, tmp_path: Path) -> None:
    """With dropout, which draws from the seed at every step."""
    held = {}
    for name, seed in (("one", 7), ("two", 7), ("other", 8)):
        model = fresh_base(tokenizer)
        encoder = encoder_for(model.config, tokenizer, NUM_FRAMES, 512)
        # Whatever was drawn before a training must not count.
        torch.manual_seed(len(name) * 100 + len(held))
        result = run(model, encoder, tmp_path / name, clips(3, 3, 2), seed=seed, lora_dropout=0.2)
        save_adapter(result.model, tmp_path / name / "adapter")
        held[name] = (tmp_path / name / "adapter" / "adapter_model.safetensors").read_bytes()
    assert held["one"] == held["two"] != held["other"]


def test_activations_that_are_computed_again_give_the_same_adapter(tokenizer: Any, tmp_path: Path) -> None:
    weights, calls = [], []
    for wanted in ("none", "all"):
        base = fresh_base(tokenizer)
        encoder = encoder_for(base.config, tokenizer, NUM_FRAMES, 512)
        seen: list[int] = []
        base.model.language_model.layers[0].mlp.register_forward_pre_hook(lambda *_, seen=seen: seen.append(1))
        work = tmp_path / wanted
        result = run(base, encoder, work, clips(3, 4), epochs=1.0, activation_checkpointing=wanted)
        weights.append(adapter_weights(result.model))
        calls.append(len(seen))
    assert calls[1] > calls[0]
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, rtol=1e-5, atol=1e-6)


def test_what_is_validated_on_is_never_trained_on(tokenizer: Any, tmp_path: Path) -> None:
    """Other validation films change the figures and not the weights, here with one validation, at the end."""
    trained = []
    for held_out in (clips(3, 3, of="validation"), clips(5, of="quite another")):
        model = fresh_base(tokenizer)
        encoder = encoder_for(model.config, tokenizer, NUM_FRAMES, 512)
        work = tmp_path / str(len(trained))
        trained.append(adapter_weights(run(model, encoder, work, clips(3, 2), held_out, epochs=1.0).model))
    assert all(torch.equal(weight, trained[1][name]) for name, weight in trained[0].items())


# ---- what is kept and told


def test_the_adapter_that_is_kept_is_that_of_the_best_validation(
    base: Any, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With accuracies that rise and fall, whatever the tiny model really does."""
    seen: list[dict[str, torch.Tensor]] = []

    def measure(model: Any, packs: Packs) -> dict[str, float]:
        seen.append(adapter_weights(model))
        return {"accuracy": (0.2, 0.3, 0.6, 0.5, 0.6, 0.1)[len(seen) - 1]}

    monkeypatch.setattr(training, "letter_accuracy", measure)
    result = run(base, encoder, tmp_path, clips(3, 3, 3, 3), epochs=6.0)
    assert (len(seen), result.steps, result.best_step, result.validation_accuracy) == (6, 12, 6, 0.6)
    kept = adapter_weights(result.model)
    assert all(torch.equal(kept[name], weight) for name, weight in seen[2].items())
    assert not all(torch.equal(kept[name], weight) for name, weight in seen[-1].items())
    assert not result.model.training


def test_the_accuracy_that_is_told_is_that_of_the_adapter_that_is_kept(
    base: Any, encoder: Encoder, tmp_path: Path
) -> None:
    told: dict[int, float] = {}

    def report(step: int, figures: Mapping[str, float]) -> None:
        if "validation/accuracy" in figures:
            told[step] = figures["validation/accuracy"]

    held_out = clips(5, 5, 5, of="validation")
    result = run(base, encoder, tmp_path, clips(3, 3, 3, 3), held_out, report, epochs=6.0, learning_rate=5e-2)
    assert len(told) == 6 and len(set(told.values())) > 1
    assert told[result.best_step] == max(told.values()) == result.validation_accuracy
    packs = Packs(held_out, encoder, frames_of, TRAIN.questions_per_pack)
    assert letter_accuracy(result.model, packs)["accuracy"] == result.validation_accuracy


@pytest.mark.parametrize("epochs", [0.3, 1.0, 1.3])
def test_any_length_of_training_is_validated(base: Any, encoder: Encoder, tmp_path: Path, epochs: float) -> None:
    """A training shorter than the first validation would otherwise claim an accuracy of zero."""
    told: list[int] = []

    def report(step: int, figures: Mapping[str, float]) -> None:
        told.extend([step] * ("validation/accuracy" in figures))

    held_out = clips(5, 5, of="validation")
    result = run(base, encoder, tmp_path, clips(*[1] * 8), held_out, report, epochs=epochs)
    assert told and result.best_step in told
    packs = Packs(held_out, encoder, frames_of, TRAIN.questions_per_pack)
    assert letter_accuracy(result.model, packs)["accuracy"] == result.validation_accuracy


def test_speed_is_per_second_of_all_and_utilisation_per_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training.processes, "count", lambda: 2)
    meter = Meter(flops_per_token=3e9, matrix_flops=2e12)
    meter.add(torch.tensor([16.0, 1000.0]))
    meter.add(torch.tensor([4.0, 200.0]))
    meter.seconds = 2.0
    told = meter.read()
    assert told.pop("peak_memory_gb") > 0
    assert told == {"questions_per_s": 10.0, "tokens_per_s": 600.0, "tflops": 1.8, "mfu": 0.45}


def test_figures_are_told_with_their_step_under_the_projects_names(base: Any, encoder: Encoder, tmp_path: Path) -> None:
    told: dict[str, list[int]] = {}
    values: list[float] = []

    def report(step: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            told.setdefault(name, []).append(step)
            values.append(value)

    run(base, encoder, tmp_path, clips(*[3] * 10), report=report, epochs=2.0)
    assert set(told) == {
        "train/loss",
        "train/learning_rate",
        "train/grad_norm",
        "train/questions_per_s",
        "train/tokens_per_s",
        "train/tflops",
        "train/mfu",
        "train/peak_memory_gb",
        "validation/accuracy",
        "validation/accuracy/temp",
        "validation/accuracy/th",
    }
    assert told["train/loss"] == [5, 10] == told["validation/accuracy"]
    assert np.isfinite(values).all()


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


def test_every_question_of_every_clip_is_in_exactly_one_pack(encoder: Encoder) -> None:
    given = clips(5, 1, 7, 3)
    packs = Packs(given, encoder, frames_of, 3)
    found = [question.question_id for _, questions in packs.items for question in questions]
    assert sorted(found) == sorted(question.question_id for item in given for question in item.questions)
    assert [packs[index].num_questions for index in range(len(packs))] == [len(asked) for _, asked in packs.items]
    assert max(len(asked) for _, asked in packs.items) == 3


def test_cut_subtitles_are_counted_over_the_training_clips(base: Any, encoder: Encoder, tmp_path: Path) -> None:
    short = dataclasses.replace(encoder, max_subtitle_tokens=10)
    given = clips(3, 4)
    lengths = [
        len(encoder.tokenizer(prompts.spoken(item.subtitles), add_special_tokens=False).input_ids) for item in given
    ]
    result = run(base, short, tmp_path, given, epochs=1.0)
    assert result.dropped_subtitle_tokens == sum(length - 10 for length in lengths) > 10


# ---- it learns


def test_it_learns_what_it_is_shown(base: Any, encoder: Encoder, tmp_path: Path) -> None:
    """Two clips with four questions each, by heart; they are the validation too, so that the last state is kept."""
    shown = clips(4, 4)
    before = letter_accuracy(base, Packs(shown, encoder, frames_of, 4))["accuracy"]
    # A rate at which the last steps settle, whatever the order in which threads add up.
    changes = {"epochs": 100.0, "learning_rate": 2e-3, "questions_per_pack": 4, "lora_rank": 16, "lora_alpha": 32}
    result = run(base, encoder, tmp_path, shown, shown, **changes)
    assert before < 0.6
    assert result.steps == 100
    assert letter_accuracy(result.model, Packs(shown, encoder, frames_of, 4))["accuracy"] > 0.9


# ---- when it ends


def test_a_loss_that_is_no_number_ends_it_with_the_knobs_and_whole_checkpoints(
    base: Any, encoder: Encoder, tmp_path: Path
) -> None:
    """The first step, at a learning rate of nothing, is saved; one that follows meets numbers beyond all bounds."""
    with pytest.raises(InputError) as caught:
        changes = {"learning_rate": 1e30, "warmup_fraction": 0.5, "validations_per_epoch": 3}
        run(base, encoder, tmp_path, clips(*[3] * 6), epochs=4.0, **changes)
    said = str(caught.value)
    assert "train.learning_rate=1e+30" in said and "\n" not in said and str(tmp_path) in said
    saved = load_file(checkpoints.last(tmp_path) / "adapter_model.safetensors")
    assert all(weight.isfinite().all() for weight in saved.values())


def test_training_stops_when_the_accuracy_has_not_risen_for_long_enough(
    base: Any, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the highest accuracy that counts: an equal one is no better, a lower one is worse."""
    told = iter((0.2, 0.5, 0.4, 0.5, 0.6, 0.9))
    monkeypatch.setattr(training, "letter_accuracy", lambda model, packs: {"accuracy": next(told)})
    result = run(base, encoder, tmp_path, clips(3, 3, 3, 3), epochs=6.0, early_stopping_patience=2)
    assert (result.steps, result.best_step, result.validation_accuracy) == (8, 4, 0.5)


def test_steps_are_no_more_than_asked_for_and_the_last_is_validated(
    base: Any, encoder: Encoder, tmp_path: Path
) -> None:
    result = run(base, encoder, tmp_path, clips(3, 3, 3, 3), epochs=6.0, max_steps=3)
    assert result.steps == 3 and checkpoints.last(tmp_path).name == "checkpoint-3"
