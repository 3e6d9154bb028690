"""What is asked of runs that have ended."""

from __future__ import annotations

from pathlib import Path

import mlflow
import pytest

from cinetune.tracking import lifecycle
from cinetune.tracking.queries import fetch

pytestmark = pytest.mark.experience


def test_what_a_run_holds_is_fetched_as_a_folder(store: mlflow.MlflowClient, tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}", encoding="utf-8")
    with lifecycle.start("train") as run:
        run.log_artifacts(tmp_path / "adapter", "adapter")
    folder = fetch(f"runs:/{run.id}/adapter", tmp_path / "fetched")
    assert (folder / "adapter_config.json").read_text(encoding="utf-8") == "{}"
