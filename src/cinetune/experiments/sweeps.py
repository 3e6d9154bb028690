"""A search for better training settings: what is varied, which trials there were, and what the best one is.

The study is a folder with Optuna's SQLite file, so that a killed sweep can be resumed. Settings are judged by the
validation accuracy on held-out training clips; the test clips are never looked at.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState

from cinetune import params as params_module
from cinetune.artifacts import Adapter
from cinetune.errors import InputError
from cinetune.files import file_md5, write_json
from cinetune.params import Params, SweepParams
from cinetune.task import data_card, questions

# From the least to the most; the others are lists of values to choose from.
RANGES = ("learning_rate", "lora_dropout")
CHOICES = ("lora_rank", "alpha_per_rank", "clips_per_step")
IS_LOGARITHMIC = {"learning_rate"}
SHORT = {
    "learning_rate": "lr", "lora_dropout": "dropout", "lora_rank": "rank", "alpha_per_rank": "alpha/rank",
    "clips_per_step": "clips",
}  # fmt: skip
EXAMPLES = {"learning_rate": "5.0e-4 1.0e-2", "lora_dropout": "0 0.2"}
# An empty value on a command line counts as not given.
NONE = "none"
SETTINGS, RUN, FAILURE = "settings", "run_id", "failure"
SECTIONS = ("data", "model", "prompt", "frames", "train", "sweep")
# What may change between the parts of a sweep that was stopped.
HOW = (
    "sweep.trials", "sweep.study", "sweep.startup_trials",
    "train.activation_checkpointing", "train.compile", "train.processes", "train.resume", "train.dry_run",
)  # fmt: skip
SIGNIFICANT_DIGITS = 3
MAX_FAILURES_IN_A_ROW = 3


def check_name(study: str) -> None:
    """Raises InputError for a name that would lead out of the folder of studies."""
    if study and not re.fullmatch(r"\w[\w.-]*", study):
        raise InputError(f"sweep.study {study!r} is no name: use letters, digits, '-', '_' and '.'.")


def settings_of(params: Params) -> dict[str, str]:
    """All that trials have in common; with others they could not be compared."""
    flat = {
        f"{section}.{name}": str(value)
        for section, values in data_card.named(params).sections(*SECTIONS).items()
        for name, value in values.items()
    }
    root = params.data.root
    digests = " ".join(file_md5(questions.file_of(root, split)) for split in questions.training_splits(root))
    return {name: value for name, value in flat.items() if name not in HOW} | {"the questions": digests}


def read_space(sweep: SweepParams, processes: int) -> dict[str, BaseDistribution]:
    """Optuna's distribution of each knob that is varied. Raises InputError for what no training would take."""
    space: dict[str, BaseDistribution] = {}
    for name in (*RANGES, *CHOICES):
        words = getattr(sweep, name).replace(",", " ").split()
        if words != [NONE]:
            space[name] = _range(name, words) if name in RANGES else CategoricalDistribution(_choices(name, words))
    if not space:
        raise InputError(f"the sweep varies nothing: give one of sweep.{', sweep.'.join((*RANGES, *CHOICES))} a value.")
    if "clips_per_step" in space:
        for count in space["clips_per_step"].choices:
            if count % processes:
                raise InputError(
                    f"sweep.clips_per_step holds {count}, which train.processes={processes} cannot share: name "
                    f"multiples of {processes}."
                )
    return space


def _range(name: str, words: Sequence[str]) -> FloatDistribution:
    values = [_read(name, word) for word in words]
    if len(values) != 2 or values[0] >= values[1]:
        raise InputError(
            f"sweep.{name} must be the least and the most, as in {EXAMPLES[name]!r}, got {' '.join(words)!r}."
        )
    return FloatDistribution(*values, log=name in IS_LOGARITHMIC)


def _choices(name: str, words: Sequence[str]) -> list[int]:
    if not words:
        raise InputError(f"sweep.{name} is empty: name values, as in '4 8', or {NONE} to leave it alone.")
    return list(dict.fromkeys(_read(name, word) for word in words))


def _read(name: str, word: str) -> Any:
    try:
        return params_module.read_value("train", _trained_as(name), word)
    except InputError as error:
        raise InputError(f"sweep.{name} holds {word!r}: {error}") from None


def _trained_as(name: str) -> str:
    return "lora_alpha" if name == "alpha_per_rank" else name


def with_chosen(params: Params, chosen: Mapping[str, Any]) -> Params:
    """The params of a training with what a trial chose."""
    values = {name: _rounded(value) for name, value in chosen.items() if name != "alpha_per_rank"}
    if "alpha_per_rank" in chosen:
        values["lora_alpha"] = chosen["alpha_per_rank"] * values.get("lora_rank", params.train.lora_rank)
    return params.override("train", values)


def own_choice(params: Params, space: Mapping[str, BaseDistribution]) -> dict[str, Any]:
    """What the params hold already, of the knobs whose space has it: the first trial, which others have to beat."""
    train = params.train
    own = {name: getattr(train, name) for name in (*RANGES, *CHOICES) if name != "alpha_per_rank"}
    own["alpha_per_rank"] = train.lora_alpha / train.lora_rank
    return {name: own[name] for name, values in space.items() if _holds(values, own[name])}


def _holds(values: BaseDistribution, value: float) -> bool:
    if isinstance(values, CategoricalDistribution):
        return value in values.choices
    return values.low <= value <= values.high


def name_of(chosen: Mapping[str, Any]) -> str:
    """A trial as runs and tables call it, by what differs."""
    return ", ".join(f"{SHORT[name]} {_rounded(chosen[name]):g}" for name in SHORT if name in chosen)


def _rounded(value: float) -> float:
    """Settings that people read: three digits decide no training."""
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}") if isinstance(value, float) else value


def begin(study: optuna.Study, settings: Mapping[str, str], run_id: str) -> str | None:
    """Begin or resume a study: the run to resume, or None for a new study.

    Trials that were killed in their middle are put back. Raises InputError where the study was begun with other
    settings: its trials could not be compared.
    """
    theirs = study.user_attrs.get(SETTINGS)
    if theirs is None:
        study.set_user_attr(SETTINGS, dict(settings))
        study.set_user_attr(RUN, run_id)
        return None
    for name in sorted({*theirs, *settings}):
        if theirs.get(name) != settings.get(name):
            raise InputError(
                f"the study was begun with {name}={theirs.get(name)!r}, now it is {settings.get(name)!r}: restore it, "
                "or name another sweep.study."
            )
    for trial in study.get_trials(states=[TrialState.RUNNING]):
        study.tell(trial.number, state=TrialState.FAIL)
        study.enqueue_trial(trial.params)
    return str(study.user_attrs[RUN])


def ask(study: optuna.Study, space: Mapping[str, BaseDistribution], seed: int) -> optuna.Trial:
    """The next trial: the same one, whatever process asks and however often the sweep was stopped before."""
    study.sampler = optuna.samplers.TPESampler(seed=seed + len(ended_trials(study)))
    return study.ask(dict(space))


def end(study: optuna.Study, trial: optuna.Trial, run_id: str, accuracy: float | None, failure: str = "") -> str:
    """How a trial's training ended: "complete" with an accuracy, "fail" with a reason, else "pruned"."""
    trial.set_user_attr(RUN, run_id)
    if failure:
        trial.set_user_attr(FAILURE, failure)
    state = TrialState.FAIL if failure else TrialState.PRUNED if accuracy is None else TrialState.COMPLETE
    study.tell(trial, accuracy, state=state)
    return state.name.lower()


def ended_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Those that count: trained to their end, pruned, or failed by themselves. Killed ones are taken again."""
    found = study.get_trials(states=[TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL])
    return [trial for trial in found if trial.state != TrialState.FAIL or FAILURE in trial.user_attrs]


def failures_in_a_row(study: optuna.Study) -> int:
    """Trials at the end of the study that failed one after another."""
    count = 0
    for trial in reversed(ended_trials(study)):
        if trial.state != TrialState.FAIL:
            break
        count += 1
    return count


def accuracy_of(adapter: Path) -> float | None:
    """Validation accuracy of the adapter that a trial's training has left; None where it left none."""
    return Adapter.open(adapter).training["validation_accuracy"] if adapter.is_dir() else None


def mlflow_metrics(study: optuna.Study, accuracy: float | None) -> dict[str, float | None]:
    best = best_of(study)
    return {"trial/validation_accuracy": accuracy, "best/validation_accuracy": best.value if best else None}


def check_failures(study: optuna.Study, name: str) -> None:
    """Raises InputError after several failed trainings in a row; `name` is what the last one tried."""
    if failures_in_a_row(study) >= MAX_FAILURES_IN_A_ROW:
        raise InputError(
            f"{MAX_FAILURES_IN_A_ROW} trainings in a row failed, the last one with {name}: see above, narrow what the "
            "sweep varies, and begin another study."
        )


def best_of(study: optuna.Study) -> FrozenTrial | None:
    """The completed trial of the highest validation accuracy."""
    complete = study.get_trials(states=[TrialState.COMPLETE])
    return max(complete, key=lambda trial: trial.value, default=None)


def write_best(path: Path, best: Params, whole: Params, comment: Sequence[str]) -> None:
    """A params file that holds only what differs from `whole`; how the sweep itself was run is left out."""
    content: dict[str, dict[str, Any]] = {}
    others = whole.to_dict()
    for section, values in best.to_dict().items():
        differing = {name: value for name, value in values.items() if value != others[section][name]}
        if differing and section != "sweep":
            content[section] = differing
    lines = "".join(f"# {line}\n" for line in comment)
    path.write_text(lines + yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def write(folder: Path, target: Path, params: Params, study: optuna.Study) -> dict[str, Any]:
    """Write best.yaml and sweep.json to `folder`, which becomes `target`; what the latter holds.

    Raises InputError where no trial was trained to its end.
    """
    best, measured = best_of(study), measure(study)
    if best is None:
        raise InputError("no trial was trained to its end: see above, and give the sweep more trials.")
    comment = [
        f"The best of {len(measured['trials'])} trials: {best.value:.1%} on held-out training clips, with "
        f"sweep.epochs={params.sweep.epochs:g}.",
        f"mlflow run . --env-manager local -e train -P params={target / 'best.yaml'}",
    ]
    write_best(folder / "best.yaml", with_chosen(params, best.params), params_module.load(), comment)
    write_json(folder / "sweep.json", measured)
    return measured


def measure(study: optuna.Study) -> dict[str, Any]:
    """sweep.json: every trial that ended, the best one's number, and what share of the differences a knob explains."""
    best = best_of(study)
    rows = [
        {
            "number": trial.number,
            "name": name_of(trial.params),
            "chosen": {name: _rounded(value) for name, value in trial.params.items()},
            "state": trial.state.name.lower(),
            "accuracy": trial.value if trial.state == TrialState.COMPLETE else _best_intermediate(trial),
            "validations": [value for _, value in sorted(trial.intermediate_values.items())],
            "run_id": trial.user_attrs.get(RUN, ""),
        }
        for trial in ended_trials(study)
    ]
    return {"best": None if best is None else best.number, "trials": rows, "importances": _importances(study)}


def _best_intermediate(trial: FrozenTrial) -> float | None:
    return max(trial.intermediate_values.values(), default=None)


def _importances(study: optuna.Study) -> dict[str, float]:
    """Empty where the trials are too few or too alike to tell."""
    complete = study.get_trials(states=[TrialState.COMPLETE])
    varied = {name for trial in complete for name in trial.params if len({t.params.get(name) for t in complete}) > 1}
    if len({trial.value for trial in complete}) < 2 or not varied:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return optuna.importance.get_param_importances(study, evaluator=evaluator, params=sorted(varied))
