"""How results look in MLflow: metrics, artifacts, tables and a description on a run's page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cinetune.artifacts import Evaluation
from cinetune.evaluation import ablation_effects, comparison, metrics
from cinetune.inference.server import results
from cinetune.params import Params
from cinetune.report import comparison_report
from cinetune.task import data_card, questions
from cinetune.tracking.runs import Run, Tracker
from cinetune.tracking.traces import sampling, writing

if TYPE_CHECKING:
    from cinetune.frames.store import FrameStore


def log_evaluation(run: Tracker, target: Path, evaluation: Evaluation) -> list[str]:
    """Log a saved evaluation; a sentence a scorer."""
    found = metrics.mlflow_metrics(evaluation.summary)
    # Pages open on the metric that was logged first.
    run.log_metrics(dict(sorted(found.items(), key=lambda item: item[0] != f"{evaluation.summary['split']}/accuracy")))
    run.log_artifacts(target, f"evaluation/{target.name}")
    run.log_rows(evaluation.predictions, "predictions.json")
    said = [f"{target}: {line}" for line in metrics.headlines(evaluation.summary)]
    if server := evaluation.summary.get("server"):
        run.log_metrics(results.mlflow_metrics(server, evaluation.summary["split"]))
        said.append(f"{target}: {results.told(server)}.")
    run.describe("\n".join(f"- {line}" for line in said))
    return said


def trace_sample(run: Tracker, params: Params, evaluation: Evaluation, open_frames: Callable[[], FrameStore]) -> None:
    """Some questions of an evaluation of a model, shown all there is, as traces of its run."""
    is_of_model = evaluation.made_from.get("base_digest") and not evaluation.summary["ablation"]
    if not isinstance(run, Run) or not is_of_model or not params.trace.evaluated:
        return
    table = sampling.choose(evaluation.predictions, params.trace.evaluated, params.evaluate.seed)
    clips, store = questions.load(params.data.root, params.evaluate.split), open_frames()
    tags = {"evaluated": params.evaluate.model}
    tags |= {name: value for name, value in evaluation.made_from.items() if isinstance(value, str)}
    with writing.told("the traces of some questions"):
        has_content = writing.shows_content(params.trace.content, data_card.name_of(params.data))
        sampling.write_sample(table, clips, lambda clip_id: store.read(clip_id).frames, tags, has_content, run.id)


def log_ablations(run: Tracker, target: Path, measured: Mapping[str, Any]) -> None:
    run.log_metrics(ablation_effects.mlflow_metrics(measured))
    run.log_artifacts(target, f"evaluation-{target.name}")


def log_comparison(run: Tracker, target: Path, measured: Mapping[str, Any]) -> list[str]:
    """Log a saved comparison; a sentence a difference."""
    for name, difference in measured["differences"].items():
        by_scorer = measured["differences_by_scorer"][name]
        run.log_metrics(comparison.mlflow_metrics(comparison.file_name(name), difference, by_scorer))
    said = comparison_report.headlines(measured)
    run.describe("\n".join(f"- {line}" for line in said))
    run.log_artifacts(target, "comparison")
    return said
