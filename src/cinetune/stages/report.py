"""Tables and charts of the base and the fine-tuned model, beside published results.

Takes outputs/evaluation/{base,finetuned}/, and cache/frames/ for the examples; makes outputs/report/ (by hand:
outputs/runs/<run id>/report/). Run it with `dvc repro report`, or by hand with
`mlflow run . -e report -P reference=v2`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cinetune import stages, tracking
from cinetune.errors import InputError
from cinetune.params import Params

if TYPE_CHECKING:
    import numpy as np


def run(params: Params, is_pipeline: bool = False) -> Path:
    """The report's folder."""
    with tracking.start("report", stages.tags_of(params, is_pipeline)) as tracked:
        import pandas as pd

        from cinetune import report

        tracked.log_params(stages.sections(params, "report"))
        stages.log_questions(tracked, params, params.evaluate.split, "test")
        target = stages.REPORT if is_pipeline else stages.RUNS / tracked.id / "report"
        folders = [stages.EVALUATION / name for name in ("base", "finetuned")]
        for folder in folders:
            if not (folder / "metrics.json").is_file():
                raise InputError(f"there is no evaluation in {str(folder)!r}: run `dvc repro evaluate_{folder.name}`.")
        summaries = [stages.read_json(folder / "metrics.json") for folder in folders]
        predictions = [pd.read_parquet(folder / "predictions.parquet") for folder in folders]
        made_from = [stages.read_json(folder / stages.MADE_FROM) for folder in folders]
        with stages.whole_folder(target) as folder:
            report.write(
                folder,
                *summaries,
                *predictions,
                params.report.reference,
                _base_card(Path(params.model.base) / "pretraining.json"),
                bootstrap_samples=params.evaluate.bootstrap_samples,
                seed=params.evaluate.seed,
                made_from=dict(zip((report.BASE, report.FINETUNED), made_from, strict=True)),
                frames_of=_frames(params),
            )
        tracked.log_artifacts(target, "report")
        tracked.describe("Tables, intervals, calibration, examples: `report/report.html` among the artifacts.")
        print(f"report: {target / 'report.html'}, report.md and chart.png.")
        return target


def _base_card(path: Path) -> dict[str, Any] | None:
    """What a base of our own scored in its own formats; other bases have no such file."""
    return stages.read_json(path) if path.is_file() else None


def _frames(params: Params) -> Callable[[str], np.ndarray | None] | None:
    """What the models saw, for the examples; None where it is no longer there."""
    if not (stages.FRAMES / "index.parquet").is_file():
        return None
    store = stages.open_frames(params)
    return lambda clip_id: store.read(clip_id).frames if clip_id in store else None


def main(argv: Sequence[str]) -> int:
    arguments = stages.parse(argv, "report", __doc__, has_pipeline=True)
    run(arguments.params, arguments.is_pipeline)
    return 0
