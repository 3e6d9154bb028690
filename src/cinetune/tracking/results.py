"""How results look in MLflow: metrics, artifacts, tables and a description on a run's page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cinetune.artifacts import Evaluation
from cinetune.evaluation import ablation_effects, comparison, metrics
from cinetune.inference.server import results
from cinetune.report import comparison_report
from cinetune.tracking.runs import Tracker


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
