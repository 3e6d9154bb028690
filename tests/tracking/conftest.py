"""A store of each test's own."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import mlflow
import pytest

from cinetune import cli


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database made once: making one takes seconds."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{path}").get_experiment("0")
    return path


@pytest.fixture
def store(migrated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, apart: None) -> mlflow.MlflowClient:
    shutil.copy(migrated, tmp_path / "mlflow.db")
    for name in list(os.environ):
        if name.startswith(("MLFLOW_", "CINETUNE_")) or name == "RANK":
            monkeypatch.delenv(name)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.chdir(tmp_path)
    # Warnings go to stderr, as in a command, whichever tests ran before.
    cli.set_up_logging([])
    # MLflow remembers an address that was set before.
    mlflow.set_tracking_uri(uri)
    yield mlflow.MlflowClient(uri)
    mlflow.set_tracking_uri(None)
