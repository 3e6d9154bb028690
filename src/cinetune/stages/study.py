"""Train several times to see what the headline owes to chance and to data: training seeds, training films.

Takes what train and evaluate take, `study.seeds` (each trains on all films) and `study.films` (each trains on so many
films, with the first seed). Makes outputs/runs/<run id>/study/ with study.json, report.html and report.md; every
training and evaluation is a run below it. Run it with `mlflow run . -e study -P seeds="1 2 3" -P films="9 30"`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cinetune import pipeline
from cinetune.cli import parse
from cinetune.errors import InputError
from cinetune.files import read_json, whole_folder, write_json
from cinetune.params import Params
from cinetune.task import data_card
from cinetune.tracking import runs


def run(params: Params) -> Path:
    """The study's folder."""
    with (
        pipeline.started("study", params, ["study", "train", "evaluate"], ["train"]) as tracked,
        tempfile.TemporaryDirectory() as scratch,
    ):
        from cinetune.experiments import studies
        from cinetune.report import study_report

        if not isinstance(tracked, runs.Run):
            raise InputError("study writes to MLflow: unset CINETUNE_UNTRACKED.")
        pipeline.refuse_dry_run(params)
        seeds = studies.read_numbers("study.seeds", params.study.seeds)
        if not seeds:
            raise InputError("study.seeds is empty: name at least one, as in -P seeds='1 2 3'.")
        films = studies.films_of(Path(params.data.root))
        counts = [count for count in studies.read_numbers("study.films", params.study.films) if count != len(films)]
        chosen = {count: studies.choose_films(films, count, seeds[0]) for count in counts}
        plan = [(seed, len(films)) for seed in seeds] + [(seeds[0], count) for count in counts]
        trained = []
        for seed, count in plan:
            root = Path(params.data.root)
            if count in chosen:
                root = Path(scratch) / f"{count}-films"
                studies.with_films(Path(params.data.root), chosen[count], root)
            metrics = _train_and_evaluate(params, seed, root, f"seed={seed} films={count}", tracked)
            trained.append({"seed": seed, "films": count, "metrics": metrics})
        measured = studies.measure(trained, len(films))
        target = pipeline.RUNS / tracked.id / "study"
        with whole_folder(target) as folder:
            write_json(folder / "study.json", measured)
            study_report.write(folder, measured, data_card.name_of(params.data))
        tracked.log_metrics(studies.mlflow_metrics(measured))
        tracked.log_artifacts(target, "study")
        print(f"study: {target / 'report.html'}.")
        return target


def _train_and_evaluate(params: Params, seed: int, root: Path, label: str, tracked: runs.Run) -> Mapping[str, Any]:
    """metrics.json of one more training, whose runs are named with `label`."""
    # Fewer films are still of the same data.
    params = data_card.named(params).override("train", {"seed": seed}).override("data", {"root": str(root)})
    adapter = _call("train", params, label, tracked) / "adapter"
    params = params.override("evaluate", {"model": str(adapter), "ablation": "none", "ablations": "none"})
    (metrics,) = (_call("evaluate", params, label, tracked) / "evaluation").glob("*/metrics.json")
    return read_json(metrics)


def _call(stage: str, params: Params, label: str, tracked: runs.Run) -> Path:
    """Run a stage as a run below this one; its folder."""
    child, status = pipeline.call_below(tracked, stage, params, pipeline.run_name(stage, label))
    if status:
        raise InputError(f"`{stage}` with seed {params.train.seed} ended with status {status}: see above.")
    return pipeline.RUNS / child


def main(argv: Sequence[str]) -> int:
    run(parse(argv, "study", __doc__).params)
    return 0
