"""Search for better training settings: a training each trial, cut short where it will not be the best.

Takes what train takes, and of `sweep` how many trials, which knobs are varied within what (two numbers are a range,
whole numbers are a list; none leaves train's own value) and for how many epochs. Makes
outputs/runs/<run id>/sweep/ with best.yaml, sweep.json, report.html, report.md and two plots; every trial is a run
below it. A sweep that was stopped goes on with `-P study=<its name>`, by default its run's id; trials count over all.
Run it with `mlflow run . -e sweep -P trials=6`, train the best with `-e train -P params=<folder>/best.yaml`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from cinetune import checkpoints, provenance, stages, tracking
from cinetune.errors import InputError
from cinetune.params import Params

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.distributions import BaseDistribution

STUDIES = Path("outputs/sweeps")
SECTIONS = ("data", "model", "prompt", "frames", "train", "sweep")
# What may change between the parts of a sweep that was stopped.
HOW = (
    "sweep.trials", "sweep.study", "sweep.startup_trials",
    "train.activation_checkpointing", "train.compile", "train.processes", "train.resume", "train.dry_run",
)  # fmt: skip
MOST_FAILURES_IN_A_ROW = 3


def run(params: Params) -> Path:
    """The sweep's folder."""
    from cinetune import pruning, sweeps

    check_name(params.sweep.study)
    space = sweeps.read_space(params.sweep, params.train.processes)
    name = stages.run_name("sweep", *stages.unusual(params, "sweep"))
    with tracking.start("sweep", stages.tags_of(params), name=name) as tracked, ExitStack() as stack:
        if not isinstance(tracked, tracking.Run):
            raise InputError("sweep writes to MLflow: unset CINETUNE_UNTRACKED.")
        from cinetune import model

        stages.log_questions(tracked, params, "train", "train")
        stages.open_frames(params)
        model.check_base(params.model.base)
        home = STUDIES / (params.sweep.study or tracked.id)
        home.mkdir(parents=True, exist_ok=True)
        stack.enter_context(checkpoints.held(home))
        study = pruning.open_study(home, params.sweep.startup_trials)
        earlier = sweeps.begin(study, _settings(params), tracked.id)
        if earlier:
            tracked.go_on(earlier)
        else:
            study.enqueue_trial(sweeps.own_choice(params, space))
        tracked.log_params(stages.sections(params, "sweep", "train"))
        print(f"sweep: {home / pruning.FILE}; if it is stopped it goes on with -P study={home.name}.", flush=True)
        while len(sweeps.ended_trials(study)) < params.sweep.trials:
            _try(params, study, sweeps.ask(study, space, params.sweep.seed), home, tracked)
        return _finish(params, study, space, tracked)


def check_name(study: str) -> None:
    """Raises InputError for a name that would lead out of the folder of studies."""
    if study and not re.fullmatch(r"\w[\w.-]*", study):
        raise InputError(f"sweep.study {study!r} is no name: use letters, digits, '-', '_' and '.'.")


def _settings(params: Params) -> dict[str, str]:
    """All that trials have in common; with others they could not be compared."""
    flat = {
        f"{section}.{name}": str(value)
        for section, values in stages.sections(params, *SECTIONS).items()
        for name, value in values.items()
    }
    questions = Path(params.data.root) / "questions" / "train.parquet"
    return {name: value for name, value in flat.items() if name not in HOW} | {
        "the questions": provenance.file_md5(questions)
    }


def _try(params: Params, study: Study, trial: Trial, home: Path, tracked: tracking.Run) -> None:
    """One training with what the trial chose."""
    from cinetune import pruning, sweeps

    sweep, name = params.sweep, sweeps.name_of(trial.params)
    short = {"epochs": sweep.epochs, "validations_per_epoch": sweep.validations_per_epoch}
    chosen = sweeps.with_chosen(params, trial.params).override("train", short | {"resume": False, "dry_run": False})
    print(f"sweep: trial {trial.number} of {sweep.trials}: {name}", flush=True)
    variables = pruning.name_trial(home, trial._trial_id, sweep.startup_trials)
    child, status = stages.call_below(tracked, "train", chosen, stages.run_name("train", name), variables)
    summary = stages.RUNS / child / "adapter" / "training.json"
    accuracy = stages.read_json(summary)["validation_accuracy"] if summary.is_file() else None
    failure = f"train ended with status {status}" if status else ""
    end = sweeps.end(study, trial, child, accuracy, failure)
    best = sweeps.best_of(study)
    figures = {"trial/validation_accuracy": accuracy, "best/validation_accuracy": best.value if best else None}
    tracked.log_metrics(figures, trial.number)
    print(f"sweep: trial {trial.number} is {end}" + (f", {accuracy:.1%}." if accuracy is not None else "."), flush=True)
    if sweeps.failures_in_a_row(study) >= MOST_FAILURES_IN_A_ROW:
        raise InputError(
            f"{MOST_FAILURES_IN_A_ROW} trainings in a row failed, the last one with {name}: see above, narrow what "
            "the sweep varies, and begin another study."
        )


def _finish(params: Params, study: Study, space: Mapping[str, BaseDistribution], tracked: tracking.Run) -> Path:
    from cinetune import params as params_module
    from cinetune import sweeps

    best = sweeps.best_of(study)
    if best is None:
        raise InputError("no trial was trained to its end: see above, and give the sweep more trials.")
    measured = sweeps.measure(study)
    target = stages.RUNS / tracked.id / "sweep"
    with stages.whole_folder(target) as folder:
        found, whole = sweeps.with_chosen(params, best.params), params_module.load(stages.PARAMS)
        comment = [
            f"The best of {len(measured['trials'])} trials: {best.value:.1%} on held-out training films, with "
            f"sweep.epochs={params.sweep.epochs:g}.",
            f"mlflow run . --env-manager local -e train -P params={target / 'best.yaml'}",
        ]
        sweeps.write_best(folder / "best.yaml", found, whole, comment)
        stages.write_json(folder / "sweep.json", measured)
        sweeps.write(folder, measured, space, params.data.name)
    tracked.log_artifacts(target, "sweep")
    tracked.set_tags({"best": sweeps.name_of(best.params), "best.run": best.user_attrs[sweeps.RUN]})
    tracked.log_metrics({f"importance/{name}": share for name, share in measured["importances"].items()})
    print(f"sweep: {target / 'report.html'}; the best, {best.value:.1%}: {target / 'best.yaml'}.")
    return target


def main(argv: Sequence[str]) -> int:
    run(stages.parse(argv, "sweep", __doc__).params)
    return 0
