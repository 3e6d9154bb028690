"""Compare evaluations by their saved predictions: paired differences, intervals, p-values, wins and losses.

Takes `compare.runs`, each held against the first: `base` or `finetuned` (outputs/evaluation/), the folder of an
evaluation or its predictions.parquet, an MLflow run (its id, or runs:/<id>), or models:/<name>@<alias>. Makes
outputs/runs/<run id>/comparison/ with comparison.json, disagreements-<model>.parquet, report.html and report.md. Run
it with `mlflow run . -e compare -P runs="base finetuned"`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cinetune import pipeline
from cinetune.cli import parse
from cinetune.files import whole_folder, write_json
from cinetune.params import Params


def run(params: Params) -> Path:
    """The comparison's folder."""
    chosen = params.compare
    known = ["runs", "scorer", "allow", "resample", "bootstrap_samples", "seed"]
    with (
        pipeline.started("compare", params, ["compare"], named=[chosen.runs], known=known) as tracked,
        tempfile.TemporaryDirectory() as scratch,
    ):
        from cinetune.evaluation import comparison
        from cinetune.report import comparison_report
        from cinetune.tracking import results

        names, allowed = comparison.read_names(chosen.runs), comparison.read_allowed(chosen.allow)
        evaluations = [pipeline.open_evaluation(name, Path(scratch) / str(number)) for number, name in enumerate(names)]
        overlooked = comparison.check_alike(evaluations, chosen.scorer, allowed)
        statistics = chosen.bootstrap_samples, chosen.seed, chosen.resample
        measured = comparison.measure(evaluations, chosen.scorer, *statistics)
        target = pipeline.RUNS / tracked.id / "comparison"

        def link(url: str) -> str:
            """The web's address as it is; that of a file of the data as seen from the report."""
            return url if "://" in url else os.path.relpath(Path(params.data.root) / url, target)

        with whole_folder(target) as folder:
            write_json(folder / "comparison.json", measured)
            for other in evaluations[1:]:
                rows = comparison.disagreements(other, evaluations[0], chosen.scorer)
                name = f"disagreements-{comparison.file_name(other.name)}"
                rows.to_parquet(folder / f"{name}.parquet", index=False)
                tracked.log_rows(rows, f"{name}.json")
            comparison_report.write(folder, evaluations, measured, overlooked, params.report.reference, link)
        for line in results.log_comparison(tracked, target, measured):
            print(f"compare: {line}")
        print(f"compare: {target / 'report.html'}.")
        return target


def main(argv: Sequence[str]) -> int:
    run(parse(argv, "compare", __doc__).params)
    return 0
