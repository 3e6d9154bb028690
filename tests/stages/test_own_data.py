"""Own videos and questions, as docs/own-data.md walks from a CSV to an answer over HTTP."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from typing import Any

import pandas as pd
import pytest
import yaml

from builders import serving as servers
from builders.projects import Project, add_inputs, make_project

pytestmark = [pytest.mark.experience, pytest.mark.slow]

FILMS = {"mini": {"train_films": 9, "test_films": 1, "clips_per_film": 1}}
PLACES = ["indoors", "outdoors", "cannot be told"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """One with ten videos in a folder and thirty questions about them, three options each and no categories."""
    changes: dict[str, Any] = FILMS | {"register": {"min_clips": 1, "force": True}}
    project = make_project(tmp_path_factory.mktemp("own") / "project", changes)
    add_inputs(project, changes)
    (project.root / "data" / "clips").rename(project.root / "videos")
    names = sorted(path.name for path in (project.root / "videos").iterdir())
    with (project.root / "mine.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["video", "question", "choices", "answer"])
        for place in range(30):
            question = f"Where is shot {place // 10 + 1} set?"
            writer.writerow([names[place % 10], question, "|".join(PLACES), "ABC"[place % 3]])
        writer.writerow(["gone.mp4", "Where?", "|".join(PLACES), "A"])
    mine = {"data": {"root": "mydata"}, "register": {"name": "mine"}}
    (project.root / "mydata.yaml").write_text(yaml.safe_dump(mine | {"predict": {"model": "models:/mine@champion"}}))
    yield project


def test_thirty_rows_and_ten_videos_become_a_served_model(project: Project) -> None:
    done = project.cinetune("import", "--questions", "mine.csv", "--videos", "videos", "--out", "mydata")
    assert done.returncode == 0, done.stderr
    assert "mine.csv, row 31: video 'gone.mp4' does not exist in 'videos'" in done.stderr
    assert "mydata is ready: set data.root to mydata" in done.stdout
    done = project.run([sys.executable, "-m", "cinetune", "main", "--params", "mydata.yaml"], timeout_s=800)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((project.root / "outputs" / "evaluation" / "finetuned" / "metrics.json").read_text())
    assert metrics["chance"] == pytest.approx(1 / 3)
    asked = ["--params", "mydata.yaml", "--table", "mine.csv", "--videos", "videos", "--out", "answers.parquet"]
    done = project.cinetune("predict", *asked)
    assert done.returncode == 0, done.stderr
    answers = pd.read_parquet(project.root / "answers.parquet")
    assert len(answers) == 31 and set(answers["answer"][:30]) <= set(PLACES) and "gone.mp4" in answers["error"][30]
    ask_the_server(project)


def ask_the_server(project: Project) -> None:
    port = servers.free_port()
    command = ["cinetune", "serve", "models:/mine@champion", "--port", str(port)]
    store = f"sqlite:///{project.root / 'mlflow.db'}"
    with servers.started(command, port, project.root, store, "own") as server:
        clip = next(iter((project.root / "mydata" / "clips").iterdir())).stem
        row = {"video": f"clip:{clip}", "question": "Where is shot 1 set?", "choices": PLACES}
        good, many = server.ask(row, row | {"choices": [*PLACES, "at sea"]})
        assert good["answer"] in PLACES and good["choice"] in "ABC" and good["error"] is None
        assert "choices must be 3, got 4" in many["error"]
