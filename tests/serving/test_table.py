"""A table of questions: answers as the server gives them, bad rows with reasons, and what a killed run had done."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from tqdm import tqdm

from builders.projects import ROOT, environment
from builders.refusals import sentence
from cinetune import params as params_module
from cinetune.artifacts import Adapter
from cinetune.inference.journal import Journal
from cinetune.params import Params
from cinetune.serving import table as tables
from cinetune.serving.service import ANSWER, Service
from cinetune.serving.table import Table
from cinetune.stages import predict

pytestmark = pytest.mark.serving

FIVE = "here|there|nowhere|everywhere|elsewhere"
Folder = tuple[Path, Params]


@pytest.fixture(scope="module")
def service(served_folder: Folder) -> Iterator[Service]:
    root, params = served_folder
    before = Path.cwd()
    os.chdir(root)
    try:
        service = Service.of_adapter(Adapter.open("adapter"), params)
        yield service
        service.close()
    finally:
        os.chdir(before)


def row(video: str = "clip0.mp4", question: str = "Where?", **values: Any) -> dict[str, Any]:
    return {"video": video, "question": question, "choices": FIVE} | values


def read(tmp_path: Path, served_folder: Folder, service: Service, rows: Sequence[Mapping[str, Any]]) -> Table:
    path = tmp_path / "questions.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    return Table(str(path), str(served_folder[0] / "data" / "clips"), service.task)


def bar(total: int) -> tqdm[Any]:
    return tqdm(total=total, disable=True)


def test_each_row_has_the_servers_answer_or_a_reason(tmp_path: Path, served_folder: Folder, service: Service) -> None:
    rows = [
        row(subtitles="Here!"), row("clip1"), row(question="Why?", choices=""), row("gone.mp4"), row(choices="a|a"),
        row(question=""), row(answer="C", subtitles="Here!"), row(start=1, end=2), row(start=99), row("clip1", "Who?"),
    ]  # fmt: skip
    table = read(tmp_path, served_folder, service, rows)
    assert [len(group.records) for group in table.groups] == [2, 2, 1, 1, 1]
    with Journal(tmp_path / "journal") as journal:
        tables.answer(table, service, journal, bar)
        assert len(journal.read()) == 4
    table.write(tmp_path / "answers.parquet")
    found = pd.read_parquet(tmp_path / "answers.parquet")
    assert list(found.columns) == ["row", "video", "question", "choices", "expected", *ANSWER]
    errors = {place: error for place, error in enumerate(found["error"]) if isinstance(error, str)}
    assert set(errors) == {3, 4, 5, 8}
    assert "'gone.mp4' does not exist" in errors[3] and "must differ" in errors[4] and "question" in errors[5]
    assert table.counts == {"rows": 10, "rows_failed": 4} and len(table.complaints) == 4
    assert list(found["row"]) == [f"questions.csv, row {number}" for number in range(1, 11)]
    assert found["expected"][6] == "nowhere" and pd.isna(found["choice"][2])
    served = [
        {"video": f"clip:{name}", "question": each["question"], "choices": FIVE.split("|"), "subtitles": said}
        for name, each, said in (("clip0", rows[0], "Here!"), ("clip1", rows[1], ""), ("clip1", rows[9], ""))
    ]
    from cinetune.serving.server.deadline import Deadline

    for place, expected in zip((0, 1, 9), service.answer(served, service.defaults, Deadline(None)), strict=True):
        assert found["answer"][place] == expected["answer"] and found["raw"][place] == expected["raw"]
        assert found["confidence"][place] == pytest.approx(expected["confidence"], abs=1e-5)


def test_what_was_answered_is_not_asked_again(
    tmp_path: Path, served_folder: Folder, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row(), row("clip1.mp4"), row(question="Why?", choices="")]
    table = read(tmp_path, served_folder, service, rows)
    with Journal(tmp_path / "journal") as journal:
        tables.answer(table, service, journal, bar)
    again = read(tmp_path, served_folder, service, [*rows, row("clip1.mp4", "When?")])
    asked: list[int] = []
    whole = Service.replies
    monkeypatch.setattr(Service, "replies", lambda self, *given: asked.append(len(given[2])) or whole(self, *given))
    with Journal(tmp_path / "journal") as journal:
        tables.answer(again, service, journal, bar)
    assert asked == [2]
    assert again.rows[0] == table.rows[0] and again.rows[2] == table.rows[2]


@pytest.mark.parametrize("suffix", tables.SUFFIXES)
def test_answers_are_written_in_each_format(
    tmp_path: Path, served_folder: Folder, service: Service, suffix: str
) -> None:
    table = read(tmp_path, served_folder, service, [row("gone.mp4"), row()])
    with Journal(tmp_path / "journal") as journal:
        tables.answer(table, service, journal, bar)
    path = tmp_path / f"answers{suffix}"
    table.write(path)
    readers = {".parquet": pd.read_parquet, ".csv": pd.read_csv, ".jsonl": lambda path: pd.read_json(path, lines=True)}
    found = readers[suffix](path)
    assert list(found["video"]) == ["gone.mp4", "clip0.mp4"] and found["answer"][1] in FIVE.split("|")
    choices = found["choices"][1]
    assert (json.loads(choices) if isinstance(choices, str) else list(choices)) == FIVE.split("|")


def test_wrong_tables_are_told_before_a_model_is_loaded(tmp_path: Path) -> None:
    def told(**values: Any) -> str:
        asked = (
            params_module.load(ROOT / "params.yaml")
            .override("predict", {"table": "a.csv", "out": "b.csv"} | values)
            .predict
        )
        return sentence(lambda: tables.check_out(asked))

    assert "must be a .parquet, .csv, .jsonl file" in told(out="b.txt") and "must be a" in told(out="")
    assert "give the one or the others" in told(question="Who?")


@pytest.mark.slow
def test_a_killed_table_goes_on_where_it_was(tmp_path: Path, served_folder: Folder) -> None:
    root, given = served_folder
    (root / "params.yaml").write_text(yaml.safe_dump(given.to_dict()))
    clips = tmp_path / "clips"
    clips.mkdir()
    for number in range(12):
        shutil.copy(root / "data" / "clips" / f"clip{number % 2}.mp4", clips / f"{number}.mp4")
    rows = [row(f"{number}.mp4", f"{place}?") for number in range(12) for place in range(8)]
    pd.DataFrame(rows).to_csv(tmp_path / "questions.csv", index=False)
    words = ["--model", "adapter", "--table", str(tmp_path / "questions.csv"), "--videos", str(clips)]
    command = [sys.executable, "-m", "cinetune", "predict", *words, "--out"]
    variables = environment() | {"CINETUNE_UNTRACKED": "1", "PYTHONPATH": str(ROOT / "src")}
    killed = subprocess.Popen([*command, str(tmp_path / "first.parquet")], cwd=root, env=variables)
    journals = root / "outputs" / "checkpoints"
    while not any(path.stat().st_size for path in journals.glob("predict-*/part-*.jsonl")):
        assert killed.poll() is None
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "first.parquet").exists()
    [journal] = journals.glob("predict-*/part-*.jsonl")
    held = journal.read_bytes()
    subprocess.run([*command, str(tmp_path / "second.parquet")], cwd=root, env=variables, check=True)
    subprocess.run([*command, str(tmp_path / "third.parquet")], cwd=root, env=variables, check=True)
    second, third = (pd.read_parquet(tmp_path / f"{name}.parquet") for name in ("second", "third"))
    assert held.count(b"\n") < 12 and not list(journals.glob("predict-*"))
    pd.testing.assert_frame_equal(second, third)


def test_the_command_fills_a_file(
    tmp_path: Path, served_folder: Folder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, given = served_folder
    monkeypatch.chdir(root)
    monkeypatch.setenv("CINETUNE_UNTRACKED", "1")
    pd.DataFrame([row(), row("gone.mp4")]).to_csv(tmp_path / "questions.csv", index=False)
    values = {"model": "adapter", "table": str(tmp_path / "questions.csv"), "videos": "data/clips"}
    out = tmp_path / "new" / "answers.csv"
    assert predict.run(given.override("predict", values | {"out": str(out)})) == {"rows": 2, "rows_failed": 1}
    assert len(pd.read_csv(out)) == 2
    assert capsys.readouterr().out.endswith(f"predict: 1 of 2 rows answered in {out}.\n")
