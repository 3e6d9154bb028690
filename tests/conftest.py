"""Fixtures that several folders of tests share; what they are built from is in builders/."""

from __future__ import annotations

import gc
import logging
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# The tests' models are tiny: where the cores are busy, a second thread makes them wait for each other at every product.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

from builders import served as served_module
from builders.downloads import clip
from builders.projects import Project, add_inputs, make_project
from builders.served import Logged
from builders.servers import ClipServer, serving
from cinetune import cli
from cinetune.runtime import signals

# As the command line sets it.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")


def pytest_collection_finish() -> None:
    """What has been imported by now stays to the end, so no collection of garbage needs to look at it."""
    gc.freeze()


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a command sets up for its process is taken back from that of the tests."""
    logger = logging.getLogger("cinetune")
    handlers, level = logger.handlers, logger.level
    actions = {number: signal.getsignal(number) for number in signals.ENDING}
    monkeypatch.setenv(cli.LOG_LEVEL, "INFO")
    yield
    logger.handlers = handlers
    logger.setLevel(level)
    for number, action in actions.items():
        signal.signal(number, action)


@pytest.fixture(scope="session")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return clip(tmp_path_factory.mktemp("content") / "clip.mp4")


@pytest.fixture
def server(content: bytes, tmp_path: Path) -> Iterator[ClipServer]:
    with serving(content) as server:
        server.other = clip(tmp_path / "other.mp4", seed=1)
        yield server


@pytest.fixture(scope="session")
def bare_project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Shared by tests of what is refused: none of them changes it but for its MLflow store."""
    return make_project(tmp_path_factory.mktemp("bare") / "project")


@pytest.fixture(scope="session")
def looped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, subprocess.CompletedProcess[str]]:
    """A project after its first `mlflow run .`, and what that printed; the tests that share it only add to it."""
    # Of what people call their folders, much has a space in it, or letters that are not English.
    project = make_project(tmp_path_factory.mktemp("looped") / "a project für Filme")
    add_inputs(project)
    return project, project.mlflow_run()


@pytest.fixture(scope="session")
def served_folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A folder with base model, adapter and clips, laid out as in a project's root, and its params."""
    root = tmp_path_factory.mktemp("served")
    return root, served_module.make_served_folder(root)


@pytest.fixture(scope="session")
def logged(served_folder: tuple[Path, Any]) -> Logged:
    """A version logged from the project's root as the stage does it."""
    return served_module.log(*served_folder)


@pytest.fixture(scope="session")
def served(served_folder: tuple[Path, Any], logged: Logged) -> Iterator[Any]:
    """The pyfunc in this process, loaded with pickle refused."""
    import mlflow

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
        patch.chdir(served_folder[0])
        loaded = mlflow.pyfunc.load_model(str(logged.folder))
    yield loaded
    loaded.unwrap_python_model().service.close()
