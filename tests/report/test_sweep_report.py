"""A sweep's report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from builders.studies import SPACE, study_with
from cinetune.experiments import sweeps
from cinetune.report import sweep_report

pytestmark = pytest.mark.experience


def test_the_report_shows_every_trial_with_both_plots(tmp_path: Path) -> None:
    study = study_with([[0.3, 0.6], [0.4, 0.7], [0.5, 0.8]])
    trial = sweeps.ask(study, SPACE, seed=7)
    trial.report(0.1, 1)
    sweeps.end(study, trial, "pruned", None)
    measured = sweeps.measure(study)
    assert measured["best"] == 2 and sum(measured["importances"].values()) == pytest.approx(1)
    assert [row["state"] for row in measured["trials"]] == ["complete"] * 3 + ["pruned"]
    assert json.loads(json.dumps(measured)) == measured
    sweep_report.write(tmp_path / "report", measured, SPACE, "CinePile-mini")
    told = (tmp_path / "report/report.md").read_text(encoding="utf-8")
    assert told.index("| 80.0 |") < told.index("| 60.0 |") < told.index("| 10.0 |")
    for name in ("importances.png", "parallel-coordinates.png"):
        assert (tmp_path / "report" / name).read_bytes().startswith(b"\x89PNG")


def test_one_trial_alone_has_a_report(tmp_path: Path) -> None:
    """Nothing can be said about importance, and every axis has one value."""
    measured = sweeps.measure(study_with([[0.3]]))
    assert measured["importances"] == {}
    sweep_report.write(tmp_path / "report", measured, SPACE, "CinePile-mini")
    assert (tmp_path / "report/parallel-coordinates.png").is_file()
