"""Several processes train as one would with the same packs a step; the first writes, and one reason is told."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from builders.projects import Project, add_inputs, environment, make_project
from builders.refusals import sentence
from cinetune import pipeline
from cinetune.runtime import checkpoints, distributed

pytestmark = pytest.mark.training

# Three clips of 16 questions make three packs, two a step: each second step has one for both processes.
FLAGS = {"epochs": "6", "clips_per_step": "2", "questions_per_pack": "20", "seed": "5"}
TIMED = {f"train/{name}" for name in ("questions_per_s", "tokens_per_s", "tflops", "mfu", "peak_memory_gb")}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    made = make_project(tmp_path_factory.mktemp("several") / "project")
    add_inputs(made, {"mini": {"train_films": 4}})
    done = made.cinetune("frames", "--pipeline")
    assert done.returncode == 0, done.stderr
    return made


@pytest.fixture(scope="module")
def alone(project: Project) -> tuple[list[dict[str, float]], Path]:
    """A training in one process, its figures and its adapter."""
    return trained(project, untracked(project, *words(FLAGS)))


def trained(project: Project, done: subprocess.CompletedProcess[str]) -> tuple[list[dict[str, float]], Path]:
    """The figures that a training printed, one dictionary a log, and its adapter's folder."""
    assert done.returncode == 0, done.stderr[-3000:]
    found = [re.findall(r"([\w/]+)=([-\d.e+]+)", line) for line in done.stdout.splitlines() if line.startswith("step ")]
    [folder] = re.findall(r"^train: (\S+), validation", done.stdout, re.M)
    return [{name: float(value) for name, value in figures} for figures in found], project.root / folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "adapter_model.safetensors")


def words(flags: dict[str, str]) -> list[str]:
    return ["-m", "cinetune", "train", *(word for name, value in flags.items() for word in (f"--{name}", value))]


def untracked(project: Project, *command: str) -> subprocess.CompletedProcess[str]:
    return project.run([sys.executable, *command], CINETUNE_UNTRACKED="1")


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert "4 processes need 4 GPUs, and there are 2" in sentence(distributed.device)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert distributed.device() == "cuda:1"


def test_one_process_needs_no_group() -> None:
    with distributed.joined():
        assert not torch.distributed.is_initialized()
        assert (distributed.share("it"), distributed.gather([1, 2])) == ("it", [1, 2])


@pytest.mark.slow
def test_two_processes_give_the_loss_curve_of_one(project: Project, alone: tuple[list[dict[str, float]], Path]) -> None:
    one, adapter = alone
    two, together = trained(project, untracked(project, *words(FLAGS | {"processes": "2"})))
    assert len(one) == len(two) > 4
    for ours, theirs in zip(one, two, strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours.keys() - TIMED:
            assert ours[name] == pytest.approx(theirs[name], rel=1e-3), name
    for name, weight in weights(adapter).items():
        assert (weights(together)[name] - weight).abs().max() < 1e-3, name


@pytest.mark.slow
def test_torchrun_trains_and_only_the_first_process_writes(project: Project) -> None:
    before = len(project.runs()) if (project.root / "mlflow.db").is_file() else 0
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = project.run([sys.executable, *launch, *words(FLAGS | {"epochs": "1"})])
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("train: outputs/runs/") == 1
    assert [(stage, status) for stage, status, _ in project.runs()[before:]] == [("train", "FINISHED")]
    assert not list((project.root / pipeline.CHECKPOINTS).glob("*/checkpoint-*"))


@pytest.mark.slow
def test_wrong_input_of_several_processes_is_one_sentence(project: Project) -> None:
    for flags, named in (
        (["--clips_per_step", "3"], "train.clips_per_step=3 must be a multiple of the 2 processes"),
        (["--resume"], "no training to resume"),
    ):
        done = project.cinetune("train", "--processes", "2", *flags)
        assert done.returncode == 2
        assert [line for line in done.stderr.splitlines() if "error" in line.lower()] == [
            line for line in done.stderr.splitlines() if line.startswith("error: ") and named in line
        ]
        assert done.stderr.count("error: ") == 1 and "Traceback" not in done.stderr, done.stderr
        assert project.runs()[-1][:2] == ("train", "FAILED")


@pytest.mark.slow
def test_two_processes_that_were_killed_go_on_in_the_same_run_to_the_same_adapter(project: Project) -> None:
    flags = FLAGS | {"processes": "2"}
    _, expected = trained(project, untracked(project, *words(flags)))
    before = len(project.runs())
    given = [word for name, value in flags.items() for word in ("-P", f"{name}={value}")]
    command = [sys.executable, "-m", "mlflow", "run", ".", "--env-manager", "local", "-e", "train", *given]
    process = subprocess.Popen(
        command,
        cwd=project.root,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    until = time.monotonic() + 240
    while not list(project.root.glob(f"{pipeline.CHECKPOINTS}/*/checkpoint-*/{checkpoints.COMPLETE}")):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    [work] = {path.parent for path in project.root.glob(f"{pipeline.CHECKPOINTS}/*/checkpoint-*")}
    refused = project.run([sys.executable, *words(flags | {"seed": "6"}), "--resume"])
    assert refused.returncode == 2 and "train.seed was 5, now it is 6" in refused.stderr
    assert checkpoints.last(work) is not None
    done = project.mlflow_run("train", **flags, resume="true")
    assert done.returncode == 0, done.stderr[-3000:]
    assert (project.root / pipeline.RUNS / work.name / "adapter/params.json").is_file()
    resumed = weights(project.root / pipeline.RUNS / work.name / "adapter")
    assert all(torch.equal(weight, resumed[name]) for name, weight in weights(expected).items())
    runs = project.runs()[before:]
    assert [status for _, status, _ in runs] == ["FINISHED", "FAILED", "FINISHED"]
    assert runs[2][2]["resumed"] == work.name
    assert not work.exists()


@pytest.mark.slow
def test_a_process_that_is_killed_ends_all_in_one_sentence_and_one_goes_on_alone(
    project: Project, alone: tuple[list[dict[str, float]], Path]
) -> None:
    before = len(project.runs()) if (project.root / "mlflow.db").is_file() else 0
    launcher = subprocess.Popen(
        [sys.executable, *words(FLAGS | {"processes": "2"})],
        cwd=project.root,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + 240
    while not (found := list(project.root.glob(f"{pipeline.CHECKPOINTS}/*/checkpoint-*/{checkpoints.COMPLETE}"))):
        assert launcher.poll() is None and time.monotonic() < until
        time.sleep(0.05)
    work = found[0].parents[1]
    [second] = [child for child in psutil.Process(launcher.pid).children() if child.environ()["RANK"] == "1"]
    second.kill()
    _, said = launcher.communicate(timeout=2 * distributed.PATIENCE_S + 30)
    assert launcher.returncode == 128 + signal.SIGKILL and "Traceback" not in said
    [sentence_of_it] = [line for line in said.splitlines() if line.startswith("error: ")]
    assert "process 1 of 2, counted from 0, was ended by SIGKILL" in sentence_of_it
    assert "train.resume=true" in sentence_of_it
    assert [status for _, status, _ in project.runs()[before:]] == ["FAILED"]
    _, adapter = alone
    _, resumed = trained(project, project.cinetune("train", *words(FLAGS)[3:], "--resume"))
    best = [json.loads((folder / "training.json").read_text(encoding="utf-8")) for folder in (adapter, resumed)]
    assert best[1]["validation_accuracy"] == pytest.approx(best[0]["validation_accuracy"])
    assert best[1]["best_step"] == best[0]["best_step"]
    for name, weight in weights(adapter).items():
        assert (weights(resumed)[name] - weight).abs().max() < 1e-3, name
    assert not work.exists()
