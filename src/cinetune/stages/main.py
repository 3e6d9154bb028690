"""The loop: frames, train, evaluate, report by DVC, then register; one MLflow run with a child per stage.

Takes the data, the base model and params.yaml (`-P params=<file>` names one that holds only what differs); makes all
that the stages make, and does again only what has changed. Run it with `mlflow run . --env-manager local`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from cinetune import loop, pipeline, provenance
from cinetune.cli import LOOP_PARAMS, parse
from cinetune.errors import InputError
from cinetune.files import folder_digest, read_json
from cinetune.model import lookup
from cinetune.params import Params
from cinetune.tracking import lifecycle, queries, registry, runs

logger = logging.getLogger(__name__)


def run(params: Params) -> None:
    from cinetune.data import licences
    from cinetune.evaluation import metrics
    from cinetune.report import evaluation_report
    from cinetune.task import data_card, description

    data = data_card.name_of(params.data)
    with lifecycle.start("main", name=pipeline.run_name("main", data, *pipeline.unusual(params, "train"))) as tracked:
        if not isinstance(tracked, runs.Run):
            raise InputError("main writes to MLflow: unset CINETUNE_UNTRACKED, or run `dvc repro`.")
        pipeline.refuse_dry_run(params)
        _check_inputs(params)
        # Registration would refuse it after all the work.
        task = description.of_folder(params.data.root)
        licences.of_data(data, params.register.accept_licence, task)
        registry.check_data(params.register.name, data)
        tracked.set_tags(pipeline.tags_of(params))
        tracked.log_params(data_card.named(params).to_dict())
        pipeline.log_training_questions(tracked, params)
        pipeline.log_questions(tracked, params, params.evaluate.split)
        with loop.written_params(params) as file:
            variables = {
                lifecycle.PARENT: tracked.id,
                "MLFLOW_EXPERIMENT_ID": tracked.experiment_id,
                LOOP_PARAMS: str(file),
            }
            try:
                loop.call([sys.executable, "-m", "cinetune.repro", str(file)], variables)
            finally:
                said = queries.tell_makers(tracked)
            version, of_register = _register(params, tracked, file, variables)
            said.append(of_register)
        summaries = {name: read_json(pipeline.EVALUATION / name / "metrics.json") for name in ("base", "finetuned")}
        tracked.log_metrics(metrics.headline(summaries))
        tracked.log_artifacts(pipeline.REPORT, "report")
        table = evaluation_report.console(summaries["base"], summaries["finetuned"], params.report.reference)
        tracked.describe("\n".join(["```", table, "```", *(f"- {line}" for line in said)]))
        print("", table, *said, sep="\n")
        print(f"\nThe report: {(pipeline.REPORT / 'report.html').absolute()}. The runs: `make ui`.")
        model = f"models:/{params.register.name}/{version}"
        print(f"Version {version} of {params.register.name} is served by: python -m cinetune serve {model}")


def _check_inputs(params: Params) -> None:
    if pipeline.has_frames_alone(params):
        logger.info("main: %s has no clips, so their frames are taken as they are.", params.data.root)
    else:
        files = [f"questions/{split}.parquet" for split in ("train", params.evaluate.split)]
        loop.pull_missing(params.data.root, [*files, pipeline.CLIPS])
    if not lookup.is_hub_id(params.model.base):
        loop.pull_missing(params.model.base, ["config.json"])
    pipeline.check_data(params)
    provenance.check_complete(params.model.base)


def _register(params: Params, tracked: runs.Run, file: Path, variables: Mapping[str, str]) -> tuple[str | None, str]:
    """The adapter's version, and what became of it."""
    name, digest = params.register.name, folder_digest(Path(params.register.adapter))
    embeds_base = params.register.embed_base
    version, aliases = registry.version_of(name, digest, embeds_base), registry.aliases(name)
    if version and aliases.get("challenger") == version and "champion" in aliases:
        tracked.set_tags({"unchanged.register": f"version {version}"})
        said = "unchanged, skipped; "
    else:
        loop.call([sys.executable, "-m", "cinetune", "register", "--params", str(file)], variables)
        version, aliases, said = registry.version_of(name, digest, embeds_base), registry.aliases(name), ""
    return version, f"register: {said}version {version} of {name}, champion is {aliases['champion']}"


def main(argv: Sequence[str]) -> int:
    if "--help" in argv:
        parse(argv, "main", __doc__)
    with loop.only_loop():
        run(parse(argv, "main", __doc__).params)
    return 0
