"""Tables and charts of the base and the fine-tuned model, beside published results.

Takes outputs/evaluation/{base,finetuned}/, and cache/frames/ for the examples; makes outputs/report/ (by hand:
outputs/runs/<run id>/report/). Run it with `dvc repro report`, or by hand with
`mlflow run . -e report -P reference=v2`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cinetune import pipeline
from cinetune.cli import parse
from cinetune.files import read_json, whole_folder
from cinetune.params import Params

if TYPE_CHECKING:
    import numpy as np


def run(params: Params, is_pipeline: bool = False) -> Path:
    """The report's folder."""
    with pipeline.started(
        "report", params, ["report"], [params.evaluate.split], known=["reference"], is_pipeline=is_pipeline
    ) as tracked:
        from cinetune.artifacts import Evaluation
        from cinetune.report import evaluation_report
        from cinetune.task.groups import shared_groups

        target = pipeline.REPORT if is_pipeline else pipeline.RUNS / tracked.id / "report"
        base, finetuned = (
            Evaluation.open(pipeline.EVALUATION / name, remedy=f"run `dvc repro evaluate_{name}`")
            for name in ("base", "finetuned")
        )
        word = finetuned.task.group
        asked = finetuned.predictions.reindex(columns=[word])[word].dropna()
        shared_groups(asked, finetuned.summary["split"], params.data.root, "train")
        card = Path(params.model.base) / "pretraining.json"
        with whole_folder(target) as folder:
            evaluation_report.write(
                folder,
                base.summary,
                finetuned.summary,
                base.predictions,
                finetuned.predictions,
                params.report.reference,
                # What a base of our own scored in its own formats; other bases have no such file.
                read_json(card) if card.is_file() else None,
                bootstrap_samples=params.evaluate.bootstrap_samples,
                seed=params.evaluate.seed,
                made_from={evaluation_report.BASE: base.made_from, evaluation_report.FINETUNED: finetuned.made_from},
                frames_of=_frames(params),
            )
        tracked.log_artifacts(target, "report")
        tracked.describe("Tables, intervals, calibration, examples: `report/report.html` among the artifacts.")
        print(f"report: {target / 'report.html'}, report.md and chart.png.")
        return target


def _frames(params: Params) -> Callable[[str], np.ndarray | None] | None:
    """What the models saw, for the examples; None where it is no longer there."""
    if not (pipeline.FRAMES / "index.parquet").is_file():
        return None
    store = pipeline.open_frames(params)
    return lambda clip_id: store.read(clip_id).frames if clip_id in store else None


def main(argv: Sequence[str]) -> int:
    arguments = parse(argv, "report", __doc__, has_pipeline=True)
    run(arguments.params, arguments.is_pipeline)
    return 0
