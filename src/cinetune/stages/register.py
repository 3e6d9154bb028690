"""Make the adapter a version of the registered model, and champion when it is no worse than the one before.

Takes the adapter (outputs/adapter/) and its evaluation (outputs/evaluation/finetuned/); makes a version of
`register.name`, the `challenger`, and `champion` when it has earned it. An adapter gets one version, and one more for
its base. Run it with `mlflow run . -e register`; `-P force=true` makes it champion whatever the comparison says,
`-P rollback=true` gives champion back to the version before, or to that of `-P version=`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cinetune import pipeline
from cinetune.cli import parse
from cinetune.errors import InputError
from cinetune.params import Params
from cinetune.tracking import lifecycle, registry, runs

if TYPE_CHECKING:
    from cinetune.artifacts import Adapter, Evaluation

SECTIONS = ("register", "model", "prompt", "frames")
DESCRIPTION = (
    "Video-LLaVA fine-tuned on questions about {subject}: a LoRA adapter and the name of its base. `challenger` is "
    "the newest version, `champion` the one to serve: `python -m cinetune serve models:/{name}@champion`."
)


def run(params: Params) -> str:
    """The version that was made, or that champion was given back to."""
    from cinetune.tracking import promotion

    chosen = params.register
    if chosen.rollback and chosen.force:
        raise InputError("register.rollback and register.force cannot both be true: choose one.")
    if chosen.version and not chosen.rollback:
        raise InputError("register.version names what a rollback goes back to: set register.rollback to true as well.")
    with lifecycle.start("register", pipeline.tags_of(params), name="register") as tracked:
        if not isinstance(tracked, runs.Run):
            raise InputError("register writes to MLflow and nothing else: unset CINETUNE_UNTRACKED.")
        tracked.log_params(params.sections(*SECTIONS))
        with registry.one_registration():
            back = chosen.rollback
            version, said = promotion.roll_back(chosen.name, chosen.version) if back else _register(params, tracked)
        tracked.set_tags({"version": version})
        tracked.rename(pipeline.run_name("roll back" if chosen.rollback else "register", f"version {version}"))
        tracked.describe(f"[{chosen.name}](#/models/{chosen.name}/versions/{version}): {said}")
        print(f"register: {said}")
        return version


def _register(params: Params, tracked: runs.Run) -> tuple[str, str]:
    """The adapter's version, and what became of it."""
    from cinetune.artifacts import Adapter, Evaluation
    from cinetune.data import licences
    from cinetune.serving import packaging
    from cinetune.task import data_card
    from cinetune.tracking import promotion

    chosen = params.register
    adapter = Adapter.open(chosen.adapter)
    evaluation = Evaluation.open(chosen.evaluation, remedy=f"evaluate {chosen.adapter!r} first")
    params = adapter.params(params)
    evaluation.check_of(adapter, params, packaging.measured(params, adapter.task))
    licence = licences.of_data(data_card.name_of(params.data), chosen.accept_licence, adapter.task)
    registry.check_data(chosen.name, data_card.name_of(params.data))
    known = registry.version_of(chosen.name, adapter.digest, chosen.embed_base)
    version = known or _create(params, adapter, evaluation, licence, tracked)
    print(f"register: {chosen.adapter} is version {version} of {chosen.name}{' already' if known else ''}.")
    ask = partial(pipeline.evaluate_version, tracked, params, evaluation)
    return version, promotion.promote(params, version, evaluation, ask)


def _create(params: Params, adapter: Adapter, evaluation: Evaluation, licence: str, tracked: runs.Tracker) -> str:
    from cinetune.evaluation import metrics
    from cinetune.serving import model_card, packaging

    summary, name = evaluation.summary, params.register.name
    origin = pipeline.origin_of(params, adapter, evaluation, tracked.experiment_id) | {"licence": licence}
    tracked.set_tags(origin)
    info = packaging.log_model(adapter, params, summary, origin, params.register.embed_base, evaluation)
    # A version can be made where the data is not.
    if Path(params.data.root).is_dir():
        pipeline.log_training_questions(tracked, params)
        dataset = pipeline.log_questions(tracked, params, summary["split"])
        tracked.log_model_metrics(info.model_id, metrics.mlflow_metrics(summary), dataset)
    registry.describe_model(name, DESCRIPTION.format(name=name, subject=adapter.task.subject))
    prompt = registry.register_prompt(name, info.model_uri, adapter.task)
    # The rest is in the card, and whole in the version's origin.json.
    tags = {"accuracy": model_card.accuracy(summary), "data": origin["data"], "licence": licence, "prompt": prompt}
    return registry.create_version(name, info.model_uri, adapter.digest, params.register.embed_base, tags)


def main(argv: Sequence[str]) -> int:
    run(parse(argv, "register", __doc__).params)
    return 0
