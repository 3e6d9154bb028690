"""Make the adapter a version of the registered model, and champion when it is no worse than the one before.

Takes the adapter (outputs/adapter/) and its evaluation (outputs/evaluation/finetuned/); makes a version of
`register.name` with the alias `challenger`, and `champion` when it has earned it. An adapter that is
registered already gets no second version. Run it with `mlflow run . -e register`, with `-P force=true` to make it
champion whatever the comparison says, with `-P rollback=true` to give champion back to the version before.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cinetune import licences, provenance, registry, stages, tracking
from cinetune.errors import InputError
from cinetune.params import Params

if TYPE_CHECKING:
    from cinetune.gate import Verdict

CHALLENGER, CHAMPION = "challenger", "champion"
# The version's run keeps what it answered, for the next challenger to be compared with.
PREDICTIONS = "evaluation/predictions.parquet"
DESCRIPTION = (
    "Video-LLaVA fine-tuned on questions about movie scenes: a LoRA adapter and the name of its base. `challenger` is "
    "the newest version, `champion` the one to serve: `python -m cinetune serve models:/{name}@champion`."
)
# On a version: why it is champion or not, which one it followed, why it is champion no more.
REASON, BEFORE, ROLLED_BACK = "champion_reason", "champion_before", "rolled_back"


def run(params: Params) -> str:
    """The version that was made, or that champion was given back to."""
    chosen = params.register
    if tracking.is_untracked():
        raise InputError("register writes to MLflow and nothing else: unset CINETUNE_UNTRACKED.")
    if chosen.rollback and chosen.force:
        raise InputError("register.rollback and register.force cannot both be true: choose one.")
    with tracking.start("register", stages.tags_of(params), name="register") as tracked:
        tracked.log_params(stages.sections(params, "register", "model", "prompt", "frames"))
        version, said = _roll_back(chosen.name) if chosen.rollback else _register(params, tracked)
        tracked.set_tags({"version": version})
        tracked.rename(f"{'roll back to' if chosen.rollback else 'register'} version {version}")
        tracked.describe(f"[{chosen.name}](#/models/{chosen.name}/versions/{version}): {said}")
        print(f"register: {said}")
        return version


def _register(params: Params, tracked: tracking.Run) -> tuple[str, str]:
    """The adapter's version, and what became of it."""
    chosen = params.register
    adapter, evaluation = Path(chosen.adapter), Path(chosen.evaluation)
    digest = check(adapter, evaluation)
    params = stages.as_trained(params, adapter)
    licence = licences.of_data(params.data.name, chosen.accept_licence)
    version = registry.versions(chosen.name).get(digest)
    if version is None:
        version = _create(params, digest, licence, tracked)
        print(f"register: {chosen.name} version {version} made from {adapter}.")
    else:
        print(f"register: {adapter} is version {version} of {chosen.name} already.")
    tracked.log_artifacts(evaluation, "evaluation")
    return version, _promote(params, version, evaluation)


def check(adapter: Path, evaluation: Path) -> str:
    """The adapter's digest. Raises InputError where it, or an evaluation of all of it, is missing."""
    if not (adapter / "adapter_config.json").is_file():
        raise InputError(f"there is no adapter in {str(adapter)!r}: run the train stage, or name another folder.")
    if not (evaluation / stages.MADE_FROM).is_file():
        raise InputError(f"there is no evaluation in {str(evaluation)!r}: evaluate {str(adapter)!r} first.")
    digest = provenance.folder_digest(adapter)
    evaluated = json.loads((evaluation / stages.MADE_FROM).read_text(encoding="utf-8"))["adapter_digest"]
    if evaluated != digest:
        raise InputError(
            f"the evaluation in {str(evaluation)!r} is of another adapter than {str(adapter)!r}: evaluate it "
            "(`mlflow run . -e evaluate -P model=<folder>`) and name the result as register.evaluation."
        )
    ablation = _read_metrics(evaluation)["ablation"]
    if ablation:
        raise InputError(
            f"the evaluation in {str(evaluation)!r} has the ablation {ablation!r}: name one of the whole model."
        )
    stages.refuse_other_prompt(adapter)
    return digest


def _read_metrics(evaluation: Path) -> dict[str, Any]:
    return json.loads((evaluation / "metrics.json").read_text(encoding="utf-8"))


def _create(params: Params, digest: str, licence: str, tracked: tracking.Run) -> str:
    from cinetune import metrics, serving

    chosen = params.register
    summary = _read_metrics(Path(chosen.evaluation))
    tags = _tags(params, digest, licence, summary, tracked.experiment_id)
    info = serving.log_model(Path(chosen.adapter), params, summary, tags, chosen.embed_base)
    # A version can be made where the data is not.
    if Path(params.data.root).is_dir():
        stages.log_questions(tracked, params, "train", "train")
        dataset = stages.log_questions(tracked, params, summary["split"], summary["split"])
        tracked.log_model_metrics(info.model_id, metrics.figures(summary), dataset)
    registry.describe_model(chosen.name, DESCRIPTION.format(name=chosen.name))
    return registry.create_version(
        chosen.name, info.model_uri, tags | {"base_sha256": str(info.metadata["base_sha256"])}
    )


def _tags(params: Params, digest: str, licence: str, summary: Mapping[str, Any], experiment_id: str) -> dict[str, str]:
    """Where a version comes from, as far as it can be known."""
    adapter = Path(params.register.adapter)
    tags = {
        "model": params.register.name,
        "adapter_digest": digest,
        "base_model": params.model.base,
        "base_revision": params.model.revision,
        "data": params.data.name,
        "licence": licence,
        "frames.settings": json.dumps(dataclasses.asdict(params.frames)),
        **{f"accuracy.{scorer}": str(s["overall"]["accuracy"]) for scorer, s in summary["scorers"].items()},
        "dataset": f"{summary['dataset']} {summary['split']}",
        **provenance.git_state(),
        **stages.tags_of(params),
    }
    locked = provenance.locked_paths()
    root = params.data.root
    paths = {"questions": f"{root}/questions", "clips": f"{root}/clips", "frames": str(stages.FRAMES)}
    tags |= {f"dvc.{name}": locked[path] for name, path in paths.items() if path in locked}
    if adapter == stages.ADAPTER:
        for stage, outputs in provenance.stage_outputs().items():
            maker = tracking.maker_of(experiment_id, stage, outputs)
            tags |= {f"run.{stage}": maker} if maker else {}
    elif adapter.resolve().is_relative_to(stages.RUNS.resolve()):
        tags["run.train"] = adapter.resolve().relative_to(stages.RUNS.resolve()).parts[0]
    return {name: value for name, value in tags.items() if value}


def _promote(params: Params, version: str, evaluation: Path) -> str:
    """Set the aliases, and say on the version why it is champion or is not; that in a sentence."""
    name = params.register.name
    champion = registry.aliases(name).get(CHAMPION)
    registry.set_alias(name, CHALLENGER, version)
    if champion == version:
        return f"version {version} is {CHALLENGER}, and {CHAMPION} already."
    verdict = _judge(params, champion, version, evaluation)
    registry.tag_version(name, version, REASON, verdict.reason)
    if verdict.has_earned:
        if champion:
            registry.tag_version(name, version, BEFORE, champion)
        registry.set_alias(name, CHAMPION, version)
    earned = f" and {CHAMPION}" if verdict.has_earned else f", {CHAMPION} stays {champion}"
    return f"version {version} is {CHALLENGER}{earned}: {verdict.reason}."


def _judge(params: Params, champion: str | None, version: str, evaluation: Path) -> Verdict:
    import pandas as pd

    from cinetune.gate import Verdict, judge

    chosen = params.register
    if champion is None:
        return Verdict(True, "there was no champion")
    theirs = registry.read_artifact(chosen.name, champion, PREDICTIONS, pd.read_parquet)
    if theirs is None:
        found = Verdict(False, f"the predictions of version {champion} are gone, so the two cannot be compared")
    else:
        ours = pd.read_parquet(evaluation / "predictions.parquet")
        found = judge(ours, theirs, champion, chosen.margin, params.evaluate.bootstrap_samples, params.evaluate.seed)
    if chosen.force:
        return Verdict(True, f"forced; without that: {found.reason}")
    rolled_back = registry.version_tags(chosen.name, version).get(ROLLED_BACK)
    if rolled_back:
        return Verdict(False, f"it was champion before and was rolled back ({rolled_back})")
    return found


def _roll_back(name: str) -> tuple[str, str]:
    """The version that is champion again, and that in a sentence."""
    champion = registry.aliases(name).get(CHAMPION)
    if champion is None:
        raise InputError(f"model {name!r} has no champion: nothing can be rolled back.")
    before = registry.version_tags(name, champion).get(BEFORE)
    if before is None:
        raise InputError(f"champion {champion} of {name!r} follows no other version: nothing can be rolled back.")
    registry.tag_version(name, champion, ROLLED_BACK, f"to version {before}")
    registry.set_alias(name, CHAMPION, before)
    return before, f"{CHAMPION} is version {before} again, no longer {champion}."


def main(argv: Sequence[str]) -> int:
    run(stages.parse(argv, "register", __doc__).params)
    return 0
