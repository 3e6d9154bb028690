"""A training that is stopped goes on as if nothing had been, and only from a checkpoint of its own that is whole."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from builders.refusals import sentence
from builders.trainings import MADE_BY, StoppedError
from builders.trainings import train_with_checkpoints as train
from cinetune.runtime import checkpoints

pytestmark = pytest.mark.training


def state(work: Path) -> tuple[bytes, bytes, dict[str, Any], tuple[int, float | None]]:
    """Of the kept adapter, of the last step's adapter, its optimiser, and the best validation."""
    last = checkpoints.last(work)
    told = json.loads((last / "trainer_state.json").read_text(encoding="utf-8"))
    best = told["best_global_step"], told["best_metric"]
    adapters = [(folder / "adapter_model.safetensors").read_bytes() for folder in (work / "adapter", last)]
    return *adapters, torch.load(last / "optimizer.pt", weights_only=True), best


def assert_same(one: Path, other: Path) -> None:
    kept, last, optimiser, best = state(one)
    other_kept, other_last, other_optimiser, other_best = state(other)
    assert (kept, last, best) == (other_kept, other_last, other_best)
    assert optimiser["param_groups"] == other_optimiser["param_groups"]
    assert optimiser["state"].keys() == other_optimiser["state"].keys()
    for number, moments in optimiser["state"].items():
        for name, moment in moments.items():
            assert torch.equal(torch.as_tensor(moment), torch.as_tensor(other_optimiser["state"][number][name]))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that nobody stopped."""
    work = tmp_path_factory.mktemp("whole") / "work"
    train(work)
    return work


def test_a_training_that_was_stopped_twice_ends_bit_by_bit_as_one_that_was_not(whole: Path, tmp_path: Path) -> None:
    for stop_at in (5, 8):
        with pytest.raises(StoppedError):
            train(tmp_path / "work", stop_at)
    assert checkpoints.last(tmp_path / "work").name == "checkpoint-6"
    train(tmp_path / "work")
    assert_same(whole, tmp_path / "work")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_training_that_is_told_to_end_saves_the_step_that_it_is_in(
    whole: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """Between two validations, and as if nothing had been when it goes on."""
    # A shell has the jobs in its background ignore SIGINT.
    inherited = signal.signal(number, signal.default_int_handler)
    try:
        with pytest.raises(SystemExit) as left:
            train(tmp_path / "work", signalled=number)
        assert left.value.code == 128 + number and signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, inherited)
    assert checkpoints.last(tmp_path / "work").name == "checkpoint-5"
    train(tmp_path / "work")
    assert_same(whole, tmp_path / "work")


def test_checkpoints_by_the_clock_change_nothing(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(StoppedError):
        train(tmp_path / "work", 6, checkpoint_minutes=1e-9)
    # Without them it would be that of step 4.
    assert checkpoints.last(tmp_path / "work").name == "checkpoint-5"
    train(tmp_path / "work", checkpoint_minutes=1e-9)
    assert_same(whole, tmp_path / "work")


def test_a_training_that_was_killed_behind_its_last_step_takes_no_other(whole: Path, tmp_path: Path) -> None:
    """Hugging Face's Trainer would take one more step from a checkpoint at which training was to stop."""
    for name, changes in (("steps", {"max_steps": 3}), ("patience", {"early_stopping_patience": 1})):
        first = train(tmp_path / name, **changes)
        before = state(tmp_path / name)[:2]
        again = train(tmp_path / name, **changes)
        assert (again.steps, again.best_step) == (first.steps, first.best_step)
        assert again.steps < 10 and state(tmp_path / name)[:2] == before


def test_a_half_written_checkpoint_is_ignored_and_removed(whole: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    shutil.copytree(whole, work)
    last = checkpoints.last(work)
    (last / checkpoints.COMPLETE).unlink()
    assert checkpoints.last(work) != last
    checkpoints.begin(work, "run", MADE_BY)
    assert not last.exists()


def test_only_the_last_and_the_best_checkpoint_are_kept(whole: Path) -> None:
    told = json.loads((checkpoints.last(whole) / "trainer_state.json").read_text(encoding="utf-8"))
    kept = {folder.name for folder in whole.glob("checkpoint-*")}
    assert kept == {"checkpoint-10", f"checkpoint-{told['best_global_step']}"}


def test_the_newest_training_that_fits_is_found(tmp_path: Path) -> None:
    for name, changes in (("old", {}), ("new", {}), ("other", {"train.seed": "8"})):
        checkpoints.begin(tmp_path / name, name, MADE_BY | changes)
        time.sleep(0.01)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / checkpoints.TRAINING).write_text('{"run_id"', encoding="utf-8")
    assert checkpoints.find(tmp_path, MADE_BY) == (tmp_path / "new", "new")
    assert checkpoints.find(tmp_path, MADE_BY | {"code": "2"}, may_differ=["code"]) == (tmp_path / "new", "new")


@pytest.mark.parametrize("name", sorted(MADE_BY))
def test_a_training_from_other_data_or_params_is_refused_by_name(tmp_path: Path, name: str) -> None:
    checkpoints.begin(tmp_path / "theirs", "0123", MADE_BY)
    said = sentence(lambda: checkpoints.find(tmp_path, MADE_BY | {name: "another"}))
    assert "0123" in said and f"{name} was {MADE_BY[name]}, now it is another" in said


def test_nothing_to_resume_is_one_sentence(tmp_path: Path) -> None:
    assert "leave out resume" in sentence(lambda: checkpoints.find(tmp_path / "nowhere", MADE_BY))


def test_two_processes_cannot_train_in_one_folder(tmp_path: Path) -> None:
    with checkpoints.held(tmp_path):
        assert str(tmp_path) in sentence(lambda: checkpoints.held(tmp_path).__enter__())
    with checkpoints.held(tmp_path):
        pass


@pytest.mark.slow
def test_a_training_has_the_same_bits_on_one_thread_and_on_two(tmp_path: Path) -> None:
    """A process that is given fewer threads than the one before it must not end elsewhere."""
    adapters = []
    for threads in (1, 2):
        work = tmp_path / str(threads)
        code = (
            "import pathlib, sys\n"
            "from builders.trainings import train_with_checkpoints\n"
            "train_with_checkpoints(pathlib.Path(sys.argv[1]))"
        )
        paths = os.pathsep.join(sys.path)
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": paths}
        subprocess.run([sys.executable, "-c", code, str(work)], env=environment, check=True)
        adapters.append(state(work)[:2])
    assert adapters[0] == adapters[1]


FIRST_COSINES = """
import hashlib, os
import numpy as np
import torch
import cinetune.model.base
positions = torch.from_numpy(np.linspace(0, 400, 40_000, dtype=np.float32))
found = set()
for _ in range(2000):
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.write(writer, hashlib.sha256(positions.cos().numpy()).digest())
        os._exit(0)
    os.close(writer)
    found.add(os.read(reader, 64))
    os.close(reader)
    os.waitpid(child, 0)
print(len(found))
"""


@pytest.mark.slow
@pytest.mark.nightly
def test_the_first_cosines_of_a_process_have_the_same_bits_in_each() -> None:
    """Those of rotary positions; they come from two threads at once in a process that has done nothing else."""
    environment = os.environ | {"OMP_NUM_THREADS": "2", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", FIRST_COSINES], env=environment, check=True, capture_output=True)
    assert int(done.stdout) == 1


@pytest.mark.slow
@pytest.mark.nightly
def test_killed_at_random_moments_it_ends_bit_by_bit_as_one_that_was_not(tmp_path: Path) -> None:
    """SIGKILL leaves no time to tidy up: ten times, whatever was being done or written."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["builders.trainings", "peft"])

    def start(work: Path) -> multiprocessing.process.BaseProcess:
        """Returns when the training itself begins."""
        marker = work / checkpoints.TRAINING
        before = marker.stat().st_mtime_ns if marker.is_file() else None
        process = context.Process(target=train, args=(work,), kwargs={"epochs": 4.0})
        process.start()
        while not marker.is_file() or marker.stat().st_mtime_ns == before:
            assert process.exitcode is None
            time.sleep(0.02)
        return process

    whole, work = tmp_path / "whole", tmp_path / "work"
    process = start(whole)
    started = time.monotonic()
    process.join()
    lasting = time.monotonic() - started
    random, killed, reached = np.random.default_rng(0), 0, set()
    while killed < 10:
        before = checkpoints.last(work)
        process = start(work)
        # Every second one gets a checkpoint further, however slow the machine is just now.
        while killed % 2 and process.exitcode is None and checkpoints.last(work) == before:
            time.sleep(0.005)
        process.join(float(random.uniform(0.0, 0.3)) * lasting)
        if process.exitcode is not None:
            # It came to its end before it was to be killed: the next one begins anew.
            assert process.exitcode == 0
            assert_same(whole, work)
            shutil.rmtree(work)
            continue
        process.kill()
        process.join()
        # It may have ended just before.
        killed += process.exitcode == -signal.SIGKILL
        reached.add(checkpoints.last(work))
    assert len(reached) > 2
    process = start(work)
    process.join()
    assert process.exitcode == 0
    assert_same(whole, work)
