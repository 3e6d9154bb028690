"""The loop: frames, train, evaluate, report by DVC, then register; one MLflow run with a child per stage.

Takes the data, the base model and params.yaml (`-P params=<file>` names one that holds only what differs);
makes all that the stages make, and does again only what has changed. Run it with
`mlflow run . --env-manager local`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from cinetune import loop, pipeline, provenance
from cinetune.cli import parse
from cinetune.errors import InputError
from cinetune.files import folder_digest, read_json
from cinetune.model import lookup
from cinetune.params import PARAMS, Params
from cinetune.tracking import lifecycle, queries, registry, runs


def run(params: Params) -> None:
    from cinetune.data import licences
    from cinetune.evaluation import metrics
    from cinetune.report import evaluation_report

    name = pipeline.run_name("main", params.data.name, *pipeline.unusual(params, "train"))
    with lifecycle.start("main", name=name) as tracked:
        if not isinstance(tracked, runs.Run):
            raise InputError("main writes to MLflow: unset CINETUNE_UNTRACKED, or run `dvc repro`.")
        with loop.params_in_place(params):
            _check_inputs(params)
            # Registration would refuse it after all the work.
            licences.of_data(params.data.name, params.register.accept_licence)
            tracked.set_tags(pipeline.tags_of(params))
            tracked.log_params(params.to_dict())
            for split in ("train", params.evaluate.split):
                pipeline.log_questions(tracked, params, split)
            variables = {lifecycle.PARENT: tracked.id, "MLFLOW_EXPERIMENT_ID": tracked.experiment_id}
            try:
                loop.call([sys.executable, "-m", "dvc", "repro"], variables)
            finally:
                said = queries.tell_makers(tracked)
            said += _register(params, tracked, variables)
        summaries = {name: read_json(pipeline.EVALUATION / name / "metrics.json") for name in ("base", "finetuned")}
        tracked.log_metrics(metrics.headline(summaries))
        tracked.log_artifacts(pipeline.REPORT, "report")
        table = evaluation_report.console(summaries["base"], summaries["finetuned"], params.report.reference)
        tracked.describe("\n".join(["```", table, "```", *(f"- {line}" for line in said)]))
        print("", table, *said, sep="\n")
        print(f"\nThe report: {pipeline.REPORT / 'report.html'}. The runs: `make ui`. The model: `make serve`.")


def _check_inputs(params: Params) -> None:
    root, base = Path(params.data.root), Path(params.model.base)
    needed = [root / "questions/train.parquet", root / "questions/test.parquet", root / "clips"]
    if not lookup.is_hub_id(params.model.base):
        needed.append(base / "config.json")
    missing = [path for path in needed if not path.exists()]
    if missing:
        raise InputError(
            f"{str(missing[0])!r} does not exist: run `dvc pull data.dvc base-model.dvc`, or set data.root "
            f"and model.base in {PARAMS} to what you have."
        )
    for path in (params.data.root, params.model.base):
        provenance.check_complete(path)


def _register(params: Params, tracked: runs.Run, variables: Mapping[str, str]) -> list[str]:
    name = params.register.name
    version = registry.versions(name).get(folder_digest(Path(params.register.adapter)))
    aliases = registry.aliases(name)
    if version and aliases.get("challenger") == version and "champion" in aliases:
        tracked.set_tags({"unchanged.register": f"version {version}"})
        return [f"register: unchanged, skipped; version {version} of {name}, champion is {aliases['champion']}"]
    loop.call([sys.executable, "-m", "cinetune", "register"], variables)
    aliases = registry.aliases(name)
    return [f"register: version {aliases['challenger']} of {name}, champion is {aliases['champion']}"]


def main(argv: Sequence[str]) -> int:
    if "--help" in argv:
        parse(argv, "main", __doc__)
    # Before params.yaml is read: while another loop runs it may hold that one's values.
    with loop.only_loop():
        loop.restore_params()
        run(parse(argv, "main", __doc__).params)
    return 0
