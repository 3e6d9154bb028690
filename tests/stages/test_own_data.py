"""Own videos and questions, walked by the very blocks of docs/own-data.md: from a CSV to an answer over HTTP."""

from __future__ import annotations

import base64
import csv
import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from typing import Any

import pandas as pd
import pytest
import yaml

from builders import serving as servers
from builders.projects import ROOT, Project, add_inputs, make_project
from builders.shell import blocks

pytestmark = [pytest.mark.experience, pytest.mark.slow]

FILMS = {"mini": {"train_films": 9, "test_films": 1, "clips_per_film": 1}}
PLACES = ["at home", "at sea", "in town"]
DOCUMENT = ROOT / "docs" / "own-data.md"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """One with ten videos in a folder and thirty questions about them, three options each and no categories."""
    project = make_project(tmp_path_factory.mktemp("own") / "project", FILMS)
    add_inputs(project, FILMS)
    (project.root / "data" / "clips").rename(project.root / "videos")
    names = sorted(path.name for path in (project.root / "videos").iterdir())
    with (project.root / "mine.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["video", "question", "choices", "answer"])
        for place in range(30):
            question = f"Where is shot {place // 10 + 1} set?"
            writer.writerow([names[place % 10], question, "|".join(PLACES), "ABC"[place % 3]])
        writer.writerow(["gone.mp4", "Where?", "|".join(PLACES), "A"])
    yield project


def block(sign: str) -> str:
    """The document's one block of commands that holds these words."""
    (found,) = [code for _, code in blocks(DOCUMENT) if sign in code]
    return found


def run(project: Project, code: str) -> subprocess.CompletedProcess[str]:
    done = project.run(["bash", "-euc", code], timeout_s=800)
    assert done.returncode == 0, done.stderr
    return done


def test_thirty_rows_and_ten_videos_become_a_served_model(project: Project) -> None:
    done = run(project, block("-e import"))
    assert "mine.csv, row 31: video 'gone.mp4' does not exist in 'videos'" in done.stderr
    assert re.search(r"^import: train: 24 questions about 8 clips, videos count 8; right answers A ", done.stdout, re.M)
    assert "mydata is ready: set data.root to mydata" in done.stdout
    (params,) = re.findall(r"Write `mydata.yaml`.*?```yaml\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.S)
    (project.root / "mydata.yaml").write_text(params)
    assert yaml.safe_load(params)["data"] == {"root": "mydata"}
    loop, serve = block("cinetune serve models:/mine").splitlines()
    done = run(project, loop)
    assert "version 1 of mine, champion is 1" in done.stdout and "served by: python -m cinetune serve" in done.stdout
    metrics = json.loads((project.root / "outputs" / "evaluation" / "finetuned" / "metrics.json").read_text())
    assert metrics["chance"] == pytest.approx(1 / 3) and metrics["dataset"] == "mydata"
    done = run(project, block("-e predict"))
    assert "30 of 31 rows answered in answers.parquet" in done.stdout
    answers = pd.read_parquet(project.root / "answers.parquet")
    assert len(answers) == 31 and set(answers["answer"][:30]) <= set(PLACES) and "gone.mp4" in answers["error"][30]
    ask_the_server(project, serve)


def ask_the_server(project: Project, serve: str) -> None:
    port, (_, _, *command, told_port) = servers.free_port(), shlex.split(serve)
    store = f"sqlite:///{project.root / 'mlflow.db'}"
    with servers.started([*command, str(port)], port, project.root, store, "own") as server:
        video = next((project.root / "videos").iterdir()).read_bytes()
        asked = block("BASE64_OF_AN_MP4").replace("BASE64_OF_AN_MP4", base64.b64encode(video).decode())
        said: Any = json.loads(run(project, asked.replace(told_port, str(port))).stdout)
        (good,) = said["predictions"]
        assert good["answer"] in PLACES and good["choice"] in "ABC" and good["error"] is None
        clip = next((project.root / "mydata" / "clips").iterdir()).stem
        row = {"video": f"clip:{clip}", "question": "Where is shot 1 set?", "choices": PLACES}
        good, many = server.ask(row, row | {"choices": [*PLACES, "in space"]})
        assert good["error"] is None and "choices must be 3, got 4" in many["error"]
