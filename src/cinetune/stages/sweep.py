"""Search for better training settings: a training each trial, cut short where it will not be the best.

Takes what train takes, and of `sweep` how many trials, which knobs are varied within what (two numbers are a range,
whole numbers are a list; none leaves train's own value) and for how many epochs. Makes
outputs/runs/<run id>/sweep/ with best.yaml, sweep.json, report.html, report.md and two plots; every trial is a run
below it. Resume a stopped sweep with `-P study=<its name>`, by default its run's id; trials count over all parts.
Run it with `mlflow run . -e sweep -P trials=6`, train the best with `-e train -P params=<folder>/best.yaml`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from cinetune import pipeline
from cinetune.cli import parse
from cinetune.errors import InputError
from cinetune.files import whole_folder
from cinetune.params import Params
from cinetune.runtime import checkpoints
from cinetune.task import data_card
from cinetune.tracking import runs

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.distributions import BaseDistribution

logger = logging.getLogger(__name__)

STUDIES = Path("outputs/sweeps")


def run(params: Params) -> Path:
    """The sweep's folder."""
    from cinetune.experiments import pruning, sweeps
    from cinetune.model.lookup import check_base

    sweeps.check_name(params.sweep.study)
    space = sweeps.read_space(params.sweep, params.train.processes)
    with pipeline.started("sweep", params, splits=["train"]) as tracked, ExitStack() as stack:
        if not isinstance(tracked, runs.Run):
            raise InputError("sweep writes to MLflow: unset CINETUNE_UNTRACKED.")
        pipeline.open_frames(params)
        check_base(params.model.base)
        home = STUDIES / (params.sweep.study or tracked.id)
        home.mkdir(parents=True, exist_ok=True)
        stack.enter_context(checkpoints.held(home))
        study = pruning.open_study(home, params.sweep.startup_trials)
        earlier = sweeps.begin(study, sweeps.settings_of(params), tracked.id)
        if earlier:
            tracked.resume(earlier)
        else:
            study.enqueue_trial(sweeps.own_choice(params, space))
        tracked.log_params(params.sections("sweep", "train"))
        logger.info("sweep: %s; if it is stopped, resume it with -P study=%s.", home / pruning.FILE, home.name)
        while len(sweeps.ended_trials(study)) < params.sweep.trials:
            _try(params, study, sweeps.ask(study, space, params.sweep.seed), home, tracked)
        return _finish(params, study, space, tracked)


def _try(params: Params, study: Study, trial: Trial, home: Path, tracked: runs.Run) -> None:
    """One training with what the trial chose."""
    from cinetune.experiments import pruning, sweeps

    sweep, name = params.sweep, sweeps.name_of(trial.params)
    short = {"epochs": sweep.epochs, "validations_per_epoch": sweep.validations_per_epoch}
    chosen = sweeps.with_chosen(params, trial.params).override("train", short | {"resume": False, "dry_run": False})
    logger.info("sweep: trial %d of %d: %s", trial.number, sweep.trials, name)
    variables = pruning.name_trial(home, trial._trial_id, sweep.startup_trials)
    child, status = pipeline.call_below(tracked, "train", chosen, pipeline.run_name("train", name), variables)
    accuracy = sweeps.accuracy_of(pipeline.RUNS / child / "adapter")
    end = sweeps.end(study, trial, child, accuracy, f"train ended with status {status}" if status else "")
    tracked.log_metrics(sweeps.mlflow_metrics(study, accuracy), trial.number)
    logger.info("sweep: trial %d is %s%s", trial.number, end, "." if accuracy is None else f", {accuracy:.1%}.")
    sweeps.check_failures(study, name)


def _finish(params: Params, study: Study, space: Mapping[str, BaseDistribution], tracked: runs.Run) -> Path:
    from cinetune.experiments import sweeps
    from cinetune.report import sweep_report

    target = pipeline.RUNS / tracked.id / "sweep"
    with whole_folder(target) as folder:
        measured = sweeps.write(folder, target, params, study)
        sweep_report.write(folder, measured, space, data_card.name_of(params.data))
    best = study.best_trial
    tracked.log_artifacts(target, "sweep")
    tracked.set_tags({"best": sweeps.name_of(best.params), "best.run": best.user_attrs[sweeps.RUN]})
    tracked.log_metrics({f"importance/{name}": share for name, share in measured["importances"].items()})
    print(f"sweep: {target / 'report.html'}; the best, {best.value:.1%}: {target / 'best.yaml'}.")
    return target


def main(argv: Sequence[str]) -> int:
    run(parse(argv, "sweep", __doc__).params)
    return 0
