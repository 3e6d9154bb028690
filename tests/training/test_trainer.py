"""Training: the loss that is meant, the same numbers from the same seed, the best checkpoint, and it learns."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments

from builders.trainings import NUM_FRAMES, TRAIN, capture_gradients, clips, frames_of, fresh_base, run
from cinetune.errors import InputError
from cinetune.model.encoder import Encoder, encoder_for
from cinetune.model.lora import is_identity, save_adapter
from cinetune.runtime import checkpoints, distributed
from cinetune.task import prompts
from cinetune.training import trainer
from cinetune.training.callbacks import Meter
from cinetune.training.dataset import Packs
from cinetune.training.loss import letter_accuracy

pytestmark = pytest.mark.training


def adapter_weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in model.named_parameters() if "lora_" in name}


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

    monkeypatch.setattr(trainer, "letter_accuracy", measure)
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

    # Slow enough that it does not choose one letter from the first validation on.
    held_out = clips(*[5] * 8, of="validation")
    result = run(base, encoder, tmp_path, clips(3, 3, 3, 3), held_out, report, epochs=6.0, learning_rate=3e-3)
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
    monkeypatch.setattr(distributed, "count", lambda: 2)
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
    assert told.pop("check/pack_difference") == [0]
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


def test_cut_subtitles_are_counted_over_the_training_clips(base: Any, encoder: Encoder, tmp_path: Path) -> None:
    short = dataclasses.replace(encoder, max_subtitle_tokens=10)
    given = clips(3, 4)
    dropped = [short.shorten(prompts.spoken(item.subtitles))[1] for item in given]
    result = run(base, short, tmp_path, given, epochs=1.0)
    assert result.dropped_subtitle_tokens == sum(dropped) > 10


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


@pytest.mark.parametrize("has_checkpoint", [False, True])
def test_in_float16_only_a_loss_that_is_no_number_ends_a_training(
    base: Any, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_checkpoint: bool
) -> None:
    """A scaled gradient that overflows is part of the way: its step is skipped, and the next one is scaled less."""
    calls: list[int] = []
    step, loss_of = trainer.PackTrainer.training_step, trainer.loss_of

    def scaled(self: Any, *arguments: Any, **options: Any) -> torch.Tensor:
        # Stands in for that of a GPU, which would skip the step.
        self.accelerator.scaler = torch.amp.GradScaler("cpu", enabled=False)
        return step(self, *arguments, **options)

    def overflowing(model: Any, batch: Any) -> torch.Tensor:
        calls.append(1)
        loss = loss_of(model, batch)
        if len(calls) <= TRAIN.clips_per_step:
            # A root of nothing: it is a number, its slope is none.
            return loss + sum(0 * weight.sum() for weight in model.parameters() if weight.requires_grad).sqrt()
        if has_checkpoint:
            (tmp_path / "checkpoint-1").mkdir(exist_ok=True)
            (tmp_path / "checkpoint-1" / "complete").touch()
        return loss * float("nan")

    monkeypatch.setattr(trainer.PackTrainer, "training_step", scaled)
    monkeypatch.setattr(trainer, "loss_of", overflowing)
    with pytest.raises(InputError) as caught:
        run(base, encoder, tmp_path, clips(*[3] * 6), epochs=4.0, validations_per_epoch=1)
    said = str(caught.value)
    assert "the loss is NaN or inf at step 2" in said
    assert ("no checkpoint was saved" in said) is not has_checkpoint
    assert (str(tmp_path / "checkpoint-1") in said) is has_checkpoint


def test_a_training_of_fewer_steps_than_are_logged_at_once_is_logged(
    base: Any, encoder: Encoder, tmp_path: Path
) -> None:
    told: dict[str, int] = {}
    run(base, encoder, tmp_path, clips(3, 3, 3), report=lambda step, figures: told.update(dict.fromkeys(figures, step)))
    assert told["train/loss"] == told["train/learning_rate"] == 4


def test_an_adapter_that_changes_nothing_is_known(base: Any, encoder: Encoder, tmp_path: Path) -> None:
    """The first step's learning rate is 0 while it warms up; a validation then may be the best."""
    short = {"epochs": 1.0, "max_steps": 1, "warmup_fraction": 0.5}
    assert is_identity(run(base, encoder, tmp_path / "short", clips(3, 3), **short).model)
    assert not is_identity(run(fresh_base(encoder.tokenizer), encoder, tmp_path / "long", clips(3, 3)).model)


def test_the_names_of_transformers_that_a_training_relies_on_are_there() -> None:
    """When this fails after an upgrade, read what took their place in transformers.Trainer and move PackTrainer there.

    They are private, so no release note tells of them; a method that is never called would change results silently.
    """
    parameters = {
        "_get_num_items_in_batch": ["self", "batch_samples", "device"],
        "_get_grad_norm": ["self", "model", "grad_norm"],
        "_save_checkpoint": ["self", "model", "trial"],
        "_load_best_model": ["self"],
        "_load_rng_state": ["self", "checkpoint"],
    }
    for name, wanted in parameters.items():
        assert list(inspect.signature(getattr(Trainer, name)).parameters) == wanted, name
    source = inspect.getsource(Trainer)
    for call in (
        "num_items_in_batch = self._get_num_items_in_batch(",
        "grad_norm = self._get_grad_norm(",
        "self._save_checkpoint(model, trial)",
        "self.compute_loss(model, inputs, num_items_in_batch=num_items_in_batch)",
        "self._get_num_items_in_batch(batch_samples, device)",
        "self._load_rng_state(resume_from_checkpoint)",
        'f"rng_state_{process_index}.pth"',
    ):
        assert call in source, call
    assert "_n_gpu" in inspect.getsource(TrainingArguments)
    control = TrainerState(stateful_callbacks=[TrainerControl()]).stateful_callbacks["TrainerControl"]
    assert "should_training_stop" in control["args"]


def test_training_stops_when_the_accuracy_has_not_risen_for_long_enough(
    base: Any, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the highest accuracy that counts: an equal one is no better, a lower one is worse."""
    told = iter((0.2, 0.5, 0.4, 0.5, 0.6, 0.9))
    monkeypatch.setattr(trainer, "letter_accuracy", lambda model, packs: {"accuracy": next(told)})
    result = run(base, encoder, tmp_path, clips(3, 3, 3, 3), epochs=6.0, early_stopping_patience=2)
    assert (result.steps, result.best_step, result.validation_accuracy) == (8, 4, 0.5)


def test_steps_are_no_more_than_asked_for_and_the_last_is_validated(
    base: Any, encoder: Encoder, tmp_path: Path
) -> None:
    result = run(base, encoder, tmp_path, clips(3, 3, 3, 3), epochs=6.0, max_steps=3)
    assert result.steps == 3 and checkpoints.last(tmp_path).name == "checkpoint-3"
