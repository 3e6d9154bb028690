"""A sweep refuses what no training would take, goes on where it was killed, and leaves a params file that trains."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import optuna
import pytest
import yaml

from cinetune import params as params_module
from cinetune import pruning, sweeps
from cinetune.params import Params
from conftest import Project, add_inputs, environment, make_project, sentence

pytestmark = pytest.mark.experience

ROOT = Path(__file__).resolve().parents[1]
PARAMS = params_module.load(ROOT / "params.yaml")
NOTHING = dict.fromkeys((*sweeps.RANGES, *sweeps.CHOICES), sweeps.NONE)


def varying(**knobs: str) -> Params:
    return PARAMS.override("sweep", NOTHING | knobs)


def space_of(**knobs: str) -> dict[str, optuna.distributions.BaseDistribution]:
    return sweeps.read_space(varying(**knobs).sweep, 1)


@pytest.mark.parametrize(
    ("knobs", "named"),
    [
        ({"learning_rate": "1e-3"}, ["sweep.learning_rate", "the least and the most", "'1e-3'"]),
        ({"learning_rate": "1e-2 1e-3"}, ["sweep.learning_rate", "'1e-2 1e-3'"]),
        ({"learning_rate": "1e-4 1e-3 1e-2"}, ["sweep.learning_rate"]),
        ({"learning_rate": "0 1e-2"}, ["sweep.learning_rate holds '0'", "above 0"]),
        ({"learning_rate": "low high"}, ["sweep.learning_rate holds 'low'", "a number"]),
        ({"learning_rate": "1e-3 inf"}, ["sweep.learning_rate holds 'inf'"]),
        ({"lora_dropout": "0 1"}, ["sweep.lora_dropout holds '1'", "below 1"]),
        ({"lora_rank": "4 8.5"}, ["sweep.lora_rank holds '8.5'", "a whole number"]),
        ({"lora_rank": "0 8"}, ["sweep.lora_rank holds '0'"]),
        ({"alpha_per_rank": "-1"}, ["sweep.alpha_per_rank holds '-1'"]),
        ({"lora_rank": ""}, ["sweep.lora_rank is empty", "none"]),
        ({}, ["varies nothing", "sweep.lora_rank"]),
    ],
)
def test_a_space_that_no_training_would_take_is_one_sentence(knobs: dict[str, str], named: Sequence[str]) -> None:
    said = sentence(lambda: space_of(**knobs))
    assert all(words in said for words in named), said


def test_clips_that_the_processes_cannot_share_are_refused() -> None:
    said = sentence(lambda: sweeps.read_space(varying(clips_per_step="2 3").sweep, 2))
    assert "holds 3" in said and "train.processes=2" in said


def test_what_is_varied_becomes_what_is_trained() -> None:
    chosen = {"learning_rate": 0.00123456, "lora_rank": 4, "alpha_per_rank": 2}
    train = sweeps.with_chosen(PARAMS, chosen).train
    assert (train.learning_rate, train.lora_rank, train.lora_alpha) == (0.00123, 4, 8)
    assert sweeps.with_chosen(PARAMS, {"alpha_per_rank": 4}).train.lora_alpha == 4 * PARAMS.train.lora_rank
    assert sweeps.name_of(chosen) == "lr 0.00123, rank 4, alpha/rank 2"


def test_the_first_trial_is_what_the_params_hold_as_far_as_the_space_has_it() -> None:
    space = sweeps.read_space(PARAMS.sweep, 1)
    assert sweeps.with_chosen(PARAMS, sweeps.own_choice(PARAMS, space)) == PARAMS
    narrow = space_of(learning_rate="1e-5 1e-4", lora_rank="4 8")
    assert sweeps.own_choice(PARAMS, narrow) == {"lora_rank": PARAMS.train.lora_rank}


def test_the_best_is_a_params_file_that_holds_only_what_differs(tmp_path: Path) -> None:
    given = PARAMS.override("model", {"dtype": "bfloat16"}).override("sweep", {"trials": 3})
    best = sweeps.with_chosen(given, {"learning_rate": 1e-5, "lora_rank": PARAMS.train.lora_rank})
    path = tmp_path / "best.yaml"
    sweeps.write_best(path, best, PARAMS, ["Trial 1."])
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert content == {"model": {"dtype": "bfloat16"}, "train": {"learning_rate": 1e-5}}
    assert params_module.load_over(path, ROOT / "params.yaml") == best.override("sweep", {"trials": 20})
    sweeps.write_best(path, PARAMS, PARAMS, ["Nothing was better."])
    assert params_module.load_over(path, ROOT / "params.yaml") == PARAMS


# ---- the study


SPACE = space_of(lora_rank="4 8", learning_rate="1e-4 1e-2")


def study_with(accuracies: Sequence[Sequence[float]], folder: Path | None = None) -> optuna.Study:
    """A study of finished trials with these validations, in memory or in a folder."""
    study = optuna.create_study(direction="maximize") if folder is None else pruning.open_study(folder, 1)
    for number, values in enumerate(accuracies):
        trial = sweeps.ask(study, SPACE, seed=7)
        for step, value in enumerate(values, 1):
            trial.report(value, step)
        assert sweeps.end(study, trial, f"run{number}", max(values)) == "complete"
    return study


def ask_as_child(study: optuna.Study, folder: Path, patch: pytest.MonkeyPatch) -> optuna.Trial:
    trial = sweeps.ask(study, SPACE, seed=7)
    for name, value in pruning.name_trial(folder, trial._trial_id, 1).items():
        patch.setenv(name, value)
    return trial


def test_a_trial_below_the_median_is_pruned_and_one_above_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_with([[0.3, 0.6], [0.5, 0.8]], tmp_path)
    good = ask_as_child(study, tmp_path, monkeypatch)
    check = pruning.judge()
    check(0.45)
    check(0.75)
    assert sweeps.end(study, good, "good", 0.75) == "complete"
    bad = ask_as_child(study, tmp_path, monkeypatch)
    check = pruning.judge()
    check(0.5)
    with pytest.raises(pruning.Pruned, match="after validation 2"):
        check(0.5)
    assert sweeps.end(study, bad, "bad", None) == "pruned"
    monkeypatch.delenv(pruning.TRIAL)
    pruning.judge()(0.0)


def test_a_killed_trial_is_taken_again_and_does_not_count() -> None:
    """With the same setting, and what follows it is what would have followed without the kill."""
    chosen = []
    for is_killed in (False, True):
        study = study_with([[0.5]])
        assert sweeps.begin(study, {"train.seed": "7"}, "first") is None
        trial = sweeps.ask(study, SPACE, seed=7)
        if is_killed:
            assert sweeps.begin(study, {"train.seed": "7"}, "second") == "first"
            assert len(sweeps.ended_trials(study)) == 1
            trial = sweeps.ask(study, SPACE, seed=7)
        sweeps.end(study, trial, "run", 0.4)
        chosen.append([trial.params, sweeps.ask(study, SPACE, seed=7).params])
    assert chosen[0] == chosen[1] and chosen[0][0] != chosen[0][1]


def test_a_study_of_other_settings_is_refused_by_the_setting() -> None:
    study = study_with([[0.5]])
    sweeps.begin(study, {"train.seed": "7", "sweep.lora_rank": "4 8"}, "run")
    said = sentence(lambda: sweeps.begin(study, {"train.seed": "7", "sweep.lora_rank": "4 16"}, "run"))
    assert "sweep.lora_rank='4 8'" in said and "'4 16'" in said and "another sweep.study" in said


def test_a_file_that_is_no_study_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / pruning.FILE).write_text("not a database, but long enough to be taken for one\n" * 50)
    assert "cannot be read" in sentence(lambda: pruning.open_study(tmp_path, 1))


def test_failures_count_as_trials_and_the_best_is_never_one_of_them() -> None:
    study = study_with([[0.5], [0.6]])
    for count in (1, 2):
        trial = sweeps.ask(study, SPACE, seed=7)
        assert sweeps.end(study, trial, "failed", None, "train ended with status 2") == "fail"
        assert sweeps.failures_in_a_row(study) == count
    assert len(sweeps.ended_trials(study)) == 4
    assert sweeps.best_of(study).value == 0.6


def test_the_report_shows_every_trial_with_both_plots(tmp_path: Path) -> None:
    study = study_with([[0.3, 0.6], [0.4, 0.7], [0.5, 0.8]])
    trial = sweeps.ask(study, SPACE, seed=7)
    trial.report(0.1, 1)
    sweeps.end(study, trial, "pruned", None)
    measured = sweeps.measure(study)
    assert measured["best"] == 2 and sum(measured["importances"].values()) == pytest.approx(1)
    assert [row["state"] for row in measured["trials"]] == ["complete"] * 3 + ["pruned"]
    assert json.loads(json.dumps(measured)) == measured
    sweeps.write(tmp_path / "report", measured, SPACE, "CinePile-mini")
    told = (tmp_path / "report/report.md").read_text(encoding="utf-8")
    assert told.index("| 80.0 |") < told.index("| 60.0 |") < told.index("| 10.0 |")
    for name in ("importances.png", "parallel-coordinates.png"):
        assert (tmp_path / "report" / name).read_bytes().startswith(b"\x89PNG")


def test_one_trial_alone_has_a_report(tmp_path: Path) -> None:
    """Nothing can be said about importance, and every axis has one value."""
    measured = sweeps.measure(study_with([[0.3]]))
    assert measured["importances"] == {}
    sweeps.write(tmp_path / "report", measured, SPACE, "CinePile-mini")
    assert (tmp_path / "report/parallel-coordinates.png").is_file()


# ---- whole sweeps


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
    assert "trial 2 of 3" in done.stdout and "trial 0 of 3" not in done.stdout
    parents = [tags for stage, _, tags in project.runs() if stage == "sweep"]
    children = [tags for stage, _, tags in project.runs() if stage == "train"]
    assert len(children) == 3 and len({tags["mlflow.parentRunId"] for tags in children}) == 1
    assert all(status == "FINISHED" for _, status, _ in project.runs())
    assert children[0]["mlflow.runName"] == "train lr 0.003, rank 8" and "resumed" in parents[1]
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


def test_no_knob_of_the_sweep_is_unknown_to_train() -> None:
    assert {*sweeps.RANGES, *sweeps.CHOICES} - {"alpha_per_rank"} <= set(dataclasses.asdict(PARAMS.train))
    assert set(sweeps.SHORT) == {*sweeps.RANGES, *sweeps.CHOICES}
