"""A sweep refuses what no training would take, goes on where it was killed, and leaves a params file that trains."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import optuna
import pytest
import yaml

from builders.projects import ROOT
from builders.refusals import sentence
from builders.studies import PARAMS, SPACE, space_of, study_with, varying
from cinetune import params as params_module
from cinetune.experiments import pruning, sweeps

pytestmark = pytest.mark.experience


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


def test_no_knob_of_the_sweep_is_unknown_to_train() -> None:
    assert {*sweeps.RANGES, *sweeps.CHOICES} - {"alpha_per_rank"} <= set(dataclasses.asdict(PARAMS.train))
    assert set(sweeps.SHORT) == {*sweeps.RANGES, *sweeps.CHOICES}
