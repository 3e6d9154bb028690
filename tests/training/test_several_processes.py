"""Packs of very different lengths give one training however many processes share them, and whoever goes on with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from builders.trainings import train_in_processes
from cinetune.runtime import checkpoints

pytestmark = [pytest.mark.training, pytest.mark.slow]

# Nine packs of 1 to 12 questions, four a step: the third step of each epoch has one for both processes.
GIVEN = {
    "numbers_of_questions": [1, 12, 2, 11, 1, 3, 12, 1, 2],
    "questions_per_pack": 12,
    "clips_per_step": 4,
    "epochs": 4.0,
    "validations_per_epoch": 3,
    "lora_dropout": 0.0,
    "learning_rate": 5e-3,
}


def logged(work: Path, name: str, after: int) -> dict[int, float]:
    """A metric by step, later than step `after`."""
    state = json.loads((checkpoints.last(work) / "trainer_state.json").read_text(encoding="utf-8"))
    return {entry["step"]: entry[name] for entry in state["log_history"] if name in entry and entry["step"] > after}


def assert_alike(one: Path, other: Path, after: int = 0) -> None:
    """Within the noise of sums in another order."""
    for name in ("loss", "eval_accuracy"):
        expected = logged(one, name, after)
        assert expected and logged(other, name, after) == pytest.approx(expected, rel=1e-4), name
    theirs = load_file(checkpoints.last(other) / "adapter_model.safetensors")
    for name, weight in load_file(checkpoints.last(one) / "adapter_model.safetensors").items():
        torch.testing.assert_close(theirs[name], weight, rtol=1e-3, atol=1e-4, msg=name)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training in one process that nobody stopped."""
    work = tmp_path_factory.mktemp("alone") / "work"
    train_in_processes(1, work, **GIVEN)
    assert len(logged(work, "eval_accuracy", 0)) == 12
    return work


def test_two_processes_train_as_one(alone: Path, tmp_path: Path) -> None:
    train_in_processes(2, tmp_path / "work", **GIVEN)
    assert_alike(alone, tmp_path / "work")


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2), (2, 2)])
def test_a_training_goes_on_in_another_number_of_processes(
    alone: Path, tmp_path: Path, before: int, after: int
) -> None:
    """In the middle of its second epoch."""
    train_in_processes(before, tmp_path / "work", stop_at=5, **GIVEN)
    assert checkpoints.last(tmp_path / "work").name == "checkpoint-4"
    train_in_processes(after, tmp_path / "work", **GIVEN)
    # A loss is the mean since the last one that was logged, or since the resume.
    assert_alike(alone, tmp_path / "work", after=5)
