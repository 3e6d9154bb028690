"""This project's own server judged through its OpenAI door is the model that it serves."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from builders.gateways import listening
from builders.judged import judged
from builders.projects import Project, add_inputs, make_project

pytestmark = [pytest.mark.evaluation, pytest.mark.slow]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Two test films with frames, and an adapter of random weights on a base of random weights."""
    import torch

    from cinetune import params as params_module
    from cinetune.artifacts import writing_adapter
    from cinetune.model.base import load_base
    from cinetune.model.lora import attach_lora, save_adapter
    from cinetune.task.description import CINEPILE

    made = make_project(tmp_path_factory.mktemp("judged") / "project")
    add_inputs(made, {"mini": {"test_films": 2, "clips_per_film": 2}})
    done = made.cinetune("frames", "--pipeline")
    assert done.returncode == 0, done.stderr[-2000:]
    params = params_module.load(made.root / "params.yaml")
    base, _ = load_base(params.override("model", {"base": str(made.root / "base-model")}).model, "cpu")
    adapted = attach_lora(base.requires_grad_(False), params.train)
    torch.manual_seed(1)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.2)
    settings = params.sections("model", "prompt", "frames")
    with writing_adapter(made.root / "adapter", settings, {}, CINEPILE) as folder:
        save_adapter(adapted, folder)
    return made


@pytest.fixture(scope="module")
def port(project: Project) -> Iterator[int]:
    from cinetune import params as params_module
    from cinetune.artifacts import Adapter
    from cinetune.serving.service import Service

    params = params_module.load(project.root / "params.yaml")
    place = Path.cwd()
    os.chdir(project.root)
    try:
        service = Service.of_adapter(Adapter.open(project.root / "adapter"), params)
    finally:
        os.chdir(place)
    with listening(service) as port:
        yield port
    service.close()


def evaluated(project: Project, model: str, **more: str) -> tuple[Path, str]:
    """The evaluation's folder, and what was printed."""
    done = project.mlflow_run("evaluate", model=model, **more)
    assert done.returncode == 0, done.stderr[-2000:]
    metrics = project.root.glob("outputs/runs/*/evaluation/*/metrics.json")
    return max(metrics, key=lambda path: path.stat().st_mtime).parent, done.stdout


def test_our_own_server_gives_the_letters_of_the_evaluation(project: Project, port: int) -> None:
    own, _ = evaluated(project, "adapter")
    served, told = evaluated(project, f"openai:http://127.0.0.1:{port}/v1#clips", server_prices="1 2")
    tables = [pd.read_parquet(folder / "predictions.parquet") for folder in (own, served)]
    assert len(tables[0]) > 30
    for name in ("question_id", "raw", "strict", "lenient", "logit", "gold", "status"):
        assert tables[0][name].equals(tables[1][name]), name
    for name in ("p_A", "p_B", "p_C", "p_D", "p_E", "letter_mass"):
        assert tables[1][name].to_numpy() == pytest.approx(tables[0][name].to_numpy(), abs=1e-5)
    summary = json.loads((served / "metrics.json").read_text(encoding="utf-8"))
    assert summary["server"]["replies"]["answered"] + summary["server"]["replies"]["empty"] == len(tables[0])
    assert summary["server"]["cost"] > 0 and "tokens read" in told
    made_from = json.loads((served / "made_from.json").read_text(encoding="utf-8"))
    assert made_from["server"]["model"] == "clips" and made_from["adapter_digest"] is None
    compared = project.mlflow_run("compare", runs=f"{own} {served}")
    assert compared.returncode == 0, compared.stderr[-2000:]
    assert "0 won and 0 lost, 0 differing answers." in compared.stdout
    [(_, metrics)] = runs_with(project, "test/server/prompt_tokens")
    assert metrics["test/server/answered"] == summary["server"]["replies"]["answered"]


def runs_with(project: Project, metric: str) -> list[tuple[str, dict[str, float]]]:
    """Ids and metrics of the MLflow runs that have a metric."""
    with closing(sqlite3.connect(project.root / "mlflow.db")) as database:
        query = "SELECT DISTINCT run_uuid FROM latest_metrics WHERE key = ?"
        ids = [run for (run,) in database.execute(query, (metric,))]
        values = "SELECT key, value FROM latest_metrics WHERE run_uuid = ?"
        return [(run, dict(database.execute(values, (run,)))) for run in ids]


def test_a_server_that_fails_leaves_a_failed_run_that_the_next_one_resumes(project: Project) -> None:
    def behave(content: dict[str, Any], before: int) -> str:
        # The first five questions are answered, each other one is not.
        return "says A" if len(server.times) <= 5 else "401 the quota is used up"

    with judged() as server:
        server.behaviour = behave
        failed = project.mlflow_run("evaluate", model=server.name, server_requests="1")
        assert "answers 401 (the quota is used up): set OPENAI_API_KEY" in failed.stderr
        assert "Traceback" not in failed.stderr.partition("cinetune")[2].partition("error:")[2]
        stage, status, _ = project.runs()[-1]
        assert (stage, status) == ("evaluate", "FAILED")
        server.behaviour = lambda *_: "says B"
        folder, _ = evaluated(project, server.name)
        assert max(server.times.values()) <= 2
    letters = pd.read_parquet(folder / "predictions.parquet")["lenient"].value_counts()
    assert letters["A"] == 5 and letters["B"] > 5
