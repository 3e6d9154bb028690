"""Trials of a sweep that will not be the best end early: the study on the disk decides after each validation.

A sweep names the trial in the environment of the training that it starts, which says how it does and is told whether
to go on. Accuracies are compared by the number of the validation, for trials differ in their steps.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cinetune.errors import InputError, reason_of
from cinetune.runtime import distributed

if TYPE_CHECKING:
    from optuna import Study

# [the study's folder, the trial's id in it, how many trials are never pruned] as JSON.
TRIAL = "CINETUNE_TRIAL"
NAME, FILE = "sweep", "study.db"


class Pruned(Exception):
    """The trial is not worth more time; says why."""


def open_study(folder: Path, startup_trials: int) -> Study:
    """The study in a folder, begun where there is none; the first `startup_trials` are not pruned.

    Raises InputError for a file that is no study.
    """
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=startup_trials)
    storage = f"sqlite:///{folder / FILE}"
    try:
        return optuna.create_study(
            storage=storage, study_name=NAME, direction="maximize", pruner=pruner, load_if_exists=True
        )
    except (SQLAlchemyError, optuna.exceptions.OptunaError, RuntimeError) as error:
        raise InputError(
            f"the study {str(folder / FILE)!r} cannot be read ({reason_of(error)}): name another one."
        ) from None


def name_trial(folder: Path, trial_id: int, startup_trials: int) -> dict[str, str]:
    """What a training's environment needs to be a trial."""
    return {TRIAL: json.dumps([str(folder), trial_id, startup_trials])}


def judged(log_metrics: Callable[[Mapping[str, float], int], None]) -> Callable[[int, Mapping[str, float]], None]:
    """Takes a step and its metrics, logs them, and raises Pruned where a validation shows that the trial will lose."""
    check = judge()

    def report(step: int, metrics: Mapping[str, float]) -> None:
        log_metrics(metrics, step)
        if "validation/accuracy" in metrics:
            check(metrics["validation/accuracy"])

    return report


def judge() -> Callable[[float], None]:
    """Takes the accuracy of each validation and raises Pruned, in all processes of a training at once.

    Nothing is ever pruned in a training that is no trial.
    """
    if TRIAL not in os.environ:
        return lambda accuracy: None
    verdict = _verdict() if distributed.is_first() else lambda accuracy: None

    def check(accuracy: float) -> None:
        reason = distributed.share(verdict(accuracy))
        if reason:
            raise Pruned(reason)

    return check


def _verdict() -> Callable[[float], str | None]:
    """Why the trial ends with this validation; None while it continues."""
    import optuna

    folder, trial_id, startup_trials = json.loads(os.environ[TRIAL])
    study = open_study(Path(folder), startup_trials)
    trial = optuna.trial.Trial(study, trial_id)
    validations = 0

    def verdict(accuracy: float) -> str | None:
        nonlocal validations
        validations += 1
        trial.report(accuracy, validations)
        if not trial.should_prune():
            return None
        return f"after validation {validations} its best accuracy was below the median of the trials before"

    return verdict
