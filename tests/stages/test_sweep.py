"""Whole sweeps."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from builders.projects import Project, add_inputs, environment, make_project
from builders.studies import SPACE, study_with
from cinetune.experiments import pruning, sweeps

pytestmark = pytest.mark.experience


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A tiny project with its frames."""
    project = make_project(tmp_path_factory.mktemp("sweep") / "a project")
    add_inputs(project, {"mini": {"train_films": 3, "clips_per_film": 1}})
    frames = project.run([sys.executable, "-m", "dvc", "repro", "--quiet", "frames"])
    assert frames.returncode == 0, frames.stderr[-3000:]
    return project


def test_nothing_is_begun_with_a_wrong_name(bare_project: Project) -> None:
    done = bare_project.cinetune("sweep", "--study", "../elsewhere")
    assert done.returncode == 2 and "'../elsewhere'" in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not (bare_project.root / "outputs").exists()


@pytest.mark.slow
def test_a_sweep_makes_children_a_report_and_a_file_that_trains_and_goes_on(project: Project) -> None:
    knobs = {"learning_rate": "1e-4 1e-2", "lora_rank": "4 8", "alpha_per_rank": "none", "clips_per_step": "none"}
    done = project.mlflow_run("sweep", trials="2", study="mine", **knobs)
    assert done.returncode == 0, done.stderr[-3000:]
    done = project.mlflow_run("sweep", trials="3", study="mine", **knobs)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "trial 2 of 3" in done.stderr and "trial 0 of 3" not in done.stderr
    parents = [tags for stage, _, tags in project.runs() if stage == "sweep"]
    children = [tags for stage, _, tags in project.runs() if stage == "train"]
    assert len(children) == 3 and len({tags["mlflow.parentRunId"] for tags in children}) == 1
    assert all(status == "FINISHED" for _, status, _ in project.runs())
    assert children[0]["mlflow.runName"] == "lr 0.003, rank 8 (train)" and "resumed" in parents[1]
    (folder,) = project.root.glob("outputs/runs/*/sweep")
    assert {path.name for path in folder.iterdir()} >= {"best.yaml", "sweep.json", "report.html", "report.md"}
    best = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))
    assert parents[0]["best.run"] == best["trials"][best["best"]]["run_id"]
    done = project.cinetune("train", "--params", str(folder / "best.yaml"), "--max_steps", "1")
    assert done.returncode == 0, done.stderr[-3000:]
    done = project.cinetune("sweep", "--study", "mine", "--trials", "3", "--learning_rate", "1e-4 1e-3")
    assert done.returncode == 2 and "alpha_per_rank='none', now it is '1 2 4'" in done.stderr, done.stderr


@pytest.mark.slow
def test_a_trial_that_is_pruned_says_so_and_leaves_nothing_behind(project: Project, tmp_path: Path) -> None:
    """In several processes, which must all end at the same validation."""
    study = study_with([[1.0] * 20], tmp_path)
    trial = sweeps.ask(study, SPACE, seed=7)
    variables = pruning.name_trial(tmp_path, trial._trial_id, 1)
    before = set(project.root.glob("outputs/*/*"))
    # Whatever is guessed by a model of random weights, some of a film's questions are wrong.
    command = [sys.executable, "-m", "cinetune", "train", "--validations_per_epoch", "1", "--processes", "2"]
    done = project.run(command, **variables)
    assert done.returncode == 0, done.stderr[-3000:]
    stage, status, tags = project.runs()[-1]
    assert (stage, status) == ("train", "FINISHED") and "below the median" in tags["pruned"]
    assert set(project.root.glob("outputs/*/*")) == before
    assert sweeps.end(study, trial, "run", None) == "pruned"


@pytest.mark.slow
@pytest.mark.nightly
def test_a_sweep_that_was_killed_goes_on_and_takes_the_killed_trial_again(project: Project, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cinetune", "sweep", "--trials", "1", "--study", "killed", "--lora_rank", "4 8"]
    with (tmp_path / "output").open("w+", encoding="utf-8") as output:
        process = subprocess.Popen(command, cwd=project.root, env=environment(), stdout=output, stderr=output)
        until = time.monotonic() + 120
        while "trial 0 of 1" not in (tmp_path / "output").read_text(encoding="utf-8") and time.monotonic() < until:
            assert process.poll() is None, (tmp_path / "output").read_text(encoding="utf-8")
            time.sleep(0.2)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    study = pruning.open_study(project.root / "outputs/sweeps/killed", 1)
    chosen = study.trials[0].params
    done = project.run(command)
    assert done.returncode == 0, done.stderr[-3000:]
    states = [(trial.state.name, trial.params) for trial in study.get_trials()]
    assert states == [("FAIL", chosen), ("COMPLETE", chosen)]
