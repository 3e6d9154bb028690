"""Studies of finished trials."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import optuna

from builders.projects import ROOT
from cinetune import params as params_module
from cinetune.experiments import pruning, sweeps
from cinetune.params import Params

PARAMS = params_module.load(ROOT / "params.yaml")
NOTHING = dict.fromkeys((*sweeps.RANGES, *sweeps.CHOICES), sweeps.NONE)


def varying(**knobs: str) -> Params:
    return PARAMS.override("sweep", NOTHING | knobs)


def space_of(**knobs: str) -> dict[str, optuna.distributions.BaseDistribution]:
    return sweeps.read_space(varying(**knobs).sweep, 1)


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
